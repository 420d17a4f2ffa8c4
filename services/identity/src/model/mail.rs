//! Messages to people: what they say, in plain English, with a token on a line of its own.
//!
//! Nothing that somebody else typed stands in a subject or makes a line of its own.

use kit::db::About;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Email, Name};

kit::id! {
    /// A message.
    MailId
}

impl About for MailId {
    const TYPE: &'static str = "message";
    fn id(&self) -> String {
        self.to_string()
    }
}

/// A message to an address.
#[derive(Debug)]
pub(crate) struct Mail {
    /// None: it goes nowhere.
    to: Option<Email>,
    letter: Letter,
}

/// What a message tells.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) enum Letter {
    /// Somebody signed up with the address.
    VerifyEmail { token: SecretString },
    /// Somebody signed up with an address that has an account.
    AccountExists,
    /// Somebody wants to set a new password.
    PasswordReset { token: SecretString },
    /// The password is another one now.
    PasswordChanged,
    /// A refresh token was used twice.
    RefreshTokenReused { device: String },
    /// Somebody is invited.
    Invitation { organization: Name, token: SecretString },
    /// An organization says that a domain is its own.
    DomainVerification { domain: String, token: SecretString },
    /// The second factor was put in force or taken away.
    SecondFactorChanged { enabled: bool },
    /// The account is suspended.
    AccountSuspended,
    /// The account is deleted.
    AccountDeleted,
}

/// A message as it is kept, sealed, until it is sent.
#[derive(Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl Mail {
    /// A message to this address.
    pub(crate) fn new(to: Email, letter: Letter) -> Self {
        Mail { to: Some(to), letter }
    }

    /// The same work, and nobody is written to: nobody learns from the clock whether there was somebody to write to.
    pub(crate) fn to_nobody(letter: Letter) -> Self {
        Mail { to: None, letter }
    }

    /// What it is, for figures.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.letter {
            Letter::VerifyEmail { .. } => "verify_email",
            Letter::AccountExists => "account_exists",
            Letter::PasswordReset { .. } => "password_reset",
            Letter::PasswordChanged => "password_changed",
            Letter::RefreshTokenReused { .. } => "refresh_token_reused",
            Letter::Invitation { .. } => "invitation",
            Letter::DomainVerification { .. } => "domain_verification",
            Letter::SecondFactorChanged { .. } => "second_factor_changed",
            Letter::AccountSuspended => "account_suspended",
            Letter::AccountDeleted => "account_deleted",
        }
    }

    /// Recipient, subject and text.
    pub(crate) fn content(&self) -> Content {
        Content {
            to: self.to.as_ref().map(Email::as_str).unwrap_or_default().to_owned(),
            subject: self.letter.subject().to_owned(),
            text: self.letter.text(),
        }
    }
}

impl Letter {
    fn subject(&self) -> &'static str {
        match self {
            Letter::VerifyEmail { .. } => "Confirm your address for Board3",
            Letter::AccountExists => "You already have a Board3 account",
            Letter::PasswordReset { .. } => "Set a new password for Board3",
            Letter::PasswordChanged => "Your Board3 password was changed",
            Letter::RefreshTokenReused { .. } => "A Board3 session was ended",
            Letter::Invitation { .. } => "You are invited to an organization in Board3",
            Letter::DomainVerification { .. } => "Confirm a domain for Board3",
            Letter::SecondFactorChanged { enabled: true } => "Your Board3 second factor is on",
            Letter::SecondFactorChanged { enabled: false } => "Your Board3 second factor is off",
            Letter::AccountSuspended => "Your Board3 account is suspended",
            Letter::AccountDeleted => "Your Board3 account is deleted",
        }
    }

    fn text(&self) -> String {
        const NOT_YOU: &str = "If this was not you, set a new password at once.\n";
        match self {
            Letter::VerifyEmail { token } => with_token(
                "Somebody signed up to Board3 with this address. To confirm that it is yours, give this token back \
                 within 24 hours:",
                token,
                "If this was not you, do nothing: no account is made.",
            ),
            Letter::AccountExists => "Somebody signed up to Board3 with this address, which has an account already. \
                 Sign in with it, or ask for a new password.\n\nIf this was not you, do nothing: nothing has changed.\n"
                .to_owned(),
            Letter::PasswordReset { token } => with_token(
                "Somebody wants to set a new password for your Board3 account. To do so, give this token back within \
                 an hour:",
                token,
                "If this was not you, do nothing: your password stays as it is.",
            ),
            Letter::PasswordChanged => {
                format!("The password of your Board3 account was changed, and every session has ended.\n\n{NOT_YOU}")
            }
            Letter::RefreshTokenReused { device } => format!(
                "A token of your Board3 session \"{}\" was used a second time, as a thief would. The session has \
                 ended; sign in again to go on.\n\n{NOT_YOU}",
                one_line(device)
            ),
            Letter::Invitation { organization, token } => with_token(
                &format!(
                    "You are invited to the organization \"{}\" in Board3. Sign in with this address, and give this \
                     token back within 7 days:",
                    one_line(organization.as_str())
                ),
                token,
                "If you do not know why, do nothing.",
            ),
            Letter::DomainVerification { domain, token } => with_token(
                &format!(
                    "An organization in Board3 says that the domain \"{}\" is its own. To confirm that, give this \
                     token back:",
                    one_line(domain)
                ),
                token,
                "If you do not know why, do nothing.",
            ),
            Letter::SecondFactorChanged { enabled: true } => format!(
                "Signing in to your Board3 account now takes a code of your authenticator application too.\n\n{NOT_YOU}"
            ),
            Letter::SecondFactorChanged { enabled: false } => format!(
                "Signing in to your Board3 account takes no code of an authenticator application any more.\n\n{NOT_YOU}"
            ),
            Letter::AccountSuspended => {
                "Your Board3 account is suspended: nobody can sign in to it until it is given back.\n".to_owned()
            }
            Letter::AccountDeleted => "Your Board3 account is deleted.\n".to_owned(),
        }
    }
}

fn with_token(before: &str, token: &SecretString, after: &str) -> String {
    format!("{before}\n\n{}\n\n{after}\n", token.expose_secret())
}

/// What somebody typed, on one line and without what could steer a reader's screen.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kit::Violations;

    use super::*;

    #[test]
    fn a_token_stands_on_a_line_of_its_own_and_what_was_typed_on_none() {
        let organization = Name::parse("name", "evil\r\nb3i_forged", &mut Violations::new()).unwrap();
        let token: SecretString = "b3i_secret".into();
        let mail = Mail::new(
            Email::parse("email", "ada@example.com", &mut Violations::new()).unwrap(),
            Letter::Invitation { organization, token },
        );
        assert!(!format!("{mail:?}").contains("b3i_secret"));
        let content = mail.content();
        let tokens: Vec<_> = content.text.lines().filter(|line| line.starts_with("b3")).collect();
        assert_eq!((tokens, content.to.as_str()), (vec!["b3i_secret"], "ada@example.com"));
        assert!(content.text.contains("\"evil  b3i_forged\""));
    }
}
