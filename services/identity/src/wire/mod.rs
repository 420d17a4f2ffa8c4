//! Messages into values, every violation at once, and rows into messages.

mod auth;
mod key;
mod member;
mod organization;
mod proof;
mod role;
mod session;
mod sign_up;
mod signing_key;
mod user;

pub(crate) use auth::{Credentials, Question, SessionQuestion, api_key_text, refresh_token_text};
pub(crate) use key::{KeysPage, RequestedKey, Rotation, api_key, api_key_id, service_account_id};
pub(crate) use member::{NewRole, invitation_id, invitation_invalid, invitation_token, member_id, membership};
pub(crate) use organization::{
    domain_to_remove, domain_to_verify, organization, organization_to_delete, organization_to_restore,
};
pub(crate) use proof::{PasswordChange, Proof};
pub(crate) use role::{PermissionQuestions, RoleChange, RoleDeletion, page_size, role, role_id, subject};
pub(crate) use session::{session, session_to_revoke, token_to_look_at};
pub(crate) use sign_up::{NewPassword, Verification, email_token_invalid};
pub(crate) use signing_key::signing_key_id;
pub(crate) use user::{Farewell, OwnChange, Search, Suspension, own_user, user_asked_for, user_to_reactivate};

use prost_types::Timestamp;
use time::OffsetDateTime;

/// Longer texts are no tokens or keys of ours.
const LONGEST_SECRET: usize = 512;

pub(crate) fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: time.nanosecond().cast_signed(),
    }
}

fn secret(field: &str, text: String) -> kit::Result<String> {
    let mut violations = kit::Violations::new();
    violations.check(!text.is_empty(), field, "is required");
    violations.check(text.len() <= LONGEST_SECRET, field, "must have at most 512 characters");
    violations.into_result()?;
    Ok(text)
}
