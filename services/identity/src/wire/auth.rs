//! Signing in, and what peers ask.

use api::identity::v1::{CheckSessionRequest, GetPermissionSetRequest, LoginRequest, PrincipalKind};
use kit::{
    Error, Result, Violations,
    ids::{self, OrgId, Principal, UserId},
};
use secrecy::SecretString;
use uuid::Uuid;

use super::LONGEST_SECRET;
use crate::model::{Email, Password, SessionId};

/// Longer texts are no codes of a second factor, however they are spaced.
const LONGEST_CODE: usize = 64;

/// What somebody signs in with.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) email: Email,
    pub(crate) password: Password,
    pub(crate) org: Option<OrgId>,
    pub(crate) device: String,
    /// A code of the second factor, if one was given.
    pub(crate) code: Option<SecretString>,
    /// What an earlier login from the same device was answered; anything at all for a stranger.
    pub(crate) device_token: SecretString,
}

impl TryFrom<LoginRequest> for Credentials {
    type Error = Error;

    fn try_from(request: LoginRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let email = Email::parse("email", &request.email, &mut violations);
        let password = Password::parse("password", request.password, &mut violations);
        let org = ids::optional("organization_id", &request.organization_id, &mut violations);
        violations.length("device", &request.device, 0, 200);
        violations.length("second_factor_code", &request.second_factor_code, 0, LONGEST_CODE);
        violations.length("device_token", &request.device_token, 0, LONGEST_SECRET);
        let code = Some(request.second_factor_code).filter(|code| !code.is_empty());
        let credentials = email.zip(password).map(|(email, password)| Credentials {
            email,
            password,
            org,
            device: request.device,
            code: code.map(SecretString::from),
            device_token: request.device_token.into(),
        });
        violations.finish(credentials)
    }
}

pub(crate) fn refresh_token_text(text: String) -> Result<String> {
    super::secret("refresh_token", text)
}

pub(crate) fn api_key_text(text: String) -> Result<String> {
    super::secret("api_key", text)
}

/// What may a principal do in an organization?
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) org: OrgId,
    pub(crate) principal: Principal,
}

impl TryFrom<GetPermissionSetRequest> for Question {
    type Error = Error;

    fn try_from(request: GetPermissionSetRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let org = ids::required("organization_id", &request.organization_id, &mut violations);
        let principal = principal(request.principal_kind, &request.principal_id, &mut violations);
        violations.finish(org.zip(principal).map(|(org, principal)| Question { org, principal }))
    }
}

/// Does a session stand?
#[derive(Debug)]
pub(crate) struct SessionQuestion {
    pub(crate) session: SessionId,
    pub(crate) principal: Principal,
    pub(crate) epoch: i64,
}

impl TryFrom<CheckSessionRequest> for SessionQuestion {
    type Error = Error;

    fn try_from(request: CheckSessionRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let session = ids::required("session_id", &request.session_id, &mut violations);
        let principal = principal(request.principal_kind, &request.principal_id, &mut violations);
        violations.check(request.epoch >= 0, "epoch", "must not be negative");
        let question = session.zip(principal);
        violations.finish(question.map(|(session, principal)| SessionQuestion {
            session,
            principal,
            epoch: request.epoch,
        }))
    }
}

pub(super) fn principal(kind: i32, id: &str, violations: &mut Violations) -> Option<Principal> {
    let id: Option<Uuid> = ids::required::<UserId>("principal_id", id, violations).map(|id| id.0);
    match PrincipalKind::try_from(kind) {
        Ok(PrincipalKind::User) => id.map(|id| Principal::User(UserId(id))),
        Ok(PrincipalKind::ApiKey) => id.map(Principal::ApiKey),
        Ok(PrincipalKind::Unspecified) | Err(_) => {
            violations.add(
                "principal_kind",
                "must be PRINCIPAL_KIND_USER or PRINCIPAL_KIND_API_KEY",
            );
            None
        }
    }
}
