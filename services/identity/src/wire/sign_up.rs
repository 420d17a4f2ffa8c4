//! Signing up, and the tokens that come back from e-mails.

use api::identity::v1::{ResetPasswordRequest, SignUpRequest, VerifyEmailRequest};
use kit::{Error, Reason, Result, Violations};

use crate::model::{Email, EmailToken, Name, NewAccount, Password, Purpose, Slug};

impl TryFrom<SignUpRequest> for NewAccount {
    type Error = Error;

    fn try_from(request: SignUpRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let email = Email::parse("email", &request.email, &mut violations);
        let username = Slug::parse("username", &request.username, &mut violations);
        let own = [email.as_ref().map(Email::as_str), username.as_ref().map(Slug::as_str)];
        let password = Password::choose("password", request.password, &own, &mut violations);
        let first_name = Name::parse("first_name", &request.first_name, &mut violations);
        let last_name = Name::parse("last_name", &request.last_name, &mut violations);
        let organization_name = Name::parse("organization_name", &request.organization_name, &mut violations);
        let organization_slug = match request.organization_slug.as_str() {
            "" => None,
            slug => Slug::parse("organization_slug", slug, &mut violations),
        };
        let account = (|| {
            Some(NewAccount {
                email: email?,
                username: username?,
                password: password?,
                first_name: first_name?,
                last_name: last_name?,
                organization_name: organization_name?,
                organization_slug,
            })
        })();
        violations.finish(account)
    }
}

/// A sign-up to be made true.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(crate) token: EmailToken,
    /// Instead of the one that was asked for.
    pub(crate) username: Option<Slug>,
    /// Instead of the one that was asked for.
    pub(crate) organization_slug: Option<Slug>,
}

impl TryFrom<VerifyEmailRequest> for Verification {
    type Error = Error;

    fn try_from(request: VerifyEmailRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let mut another = |field: &str, text: &str| match text {
            "" => None,
            text => Slug::parse(field, text, &mut violations),
        };
        let username = another("username", &request.username);
        let organization_slug = another("organization_slug", &request.organization_slug);
        let token = email_token(Purpose::SignUp, &request.token, violations)?;
        Ok(Verification {
            token,
            username,
            organization_slug,
        })
    }
}

/// A password to be set anew.
#[derive(Debug)]
pub(crate) struct NewPassword {
    pub(crate) token: EmailToken,
    pub(crate) password: Password,
}

impl TryFrom<ResetPasswordRequest> for NewPassword {
    type Error = Error;

    fn try_from(request: ResetPasswordRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let password = Password::choose("password", request.password, &[], &mut violations);
        let token = email_token(Purpose::PasswordReset, &request.token, violations)?;
        let password = password.ok_or_else(|| Error::violation("password", "is required"))?;
        Ok(NewPassword { token, password })
    }
}

/// A token to be followed, unless there are violations; what is none of ours is answered like one that is not known.
pub(crate) fn email_token(purpose: Purpose, text: &str, mut violations: Violations) -> Result<EmailToken> {
    violations.check(!text.is_empty(), "token", "is required");
    violations.check(
        text.len() <= super::LONGEST_SECRET,
        "token",
        "must have at most 512 characters",
    );
    violations.into_result()?;
    EmailToken::parse(purpose, text).ok_or_else(email_token_invalid)
}

/// One answer for all that is wrong with a token from an e-mail.
pub(crate) fn email_token_invalid() -> Error {
    Error::new(Reason::EmailTokenInvalid, "the token is unknown, used or expired")
}
