//! Signing keys.

use api::identity::v1::{self, RevokeSigningKeyRequest, SigningKeyState};
use kit::{Result, Violations};

use super::timestamp;
use crate::model::{KeyState, SigningKey};

/// The key that a request names.
pub(crate) fn signing_key_id(request: RevokeSigningKeyRequest) -> Result<String> {
    let mut violations = Violations::new();
    let body = request.key_id.strip_prefix("k4.pid.").unwrap_or_default();
    let shaped = body.len() == 44
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    violations.check(shaped, "key_id", "must be a key id like k4.pid.…");
    violations.into_result()?;
    Ok(request.key_id)
}

impl From<SigningKey> for v1::SigningKey {
    fn from(key: SigningKey) -> Self {
        let state = match key.state {
            KeyState::Pending => SigningKeyState::Pending,
            KeyState::Active => SigningKeyState::Active,
            KeyState::Retired => SigningKeyState::Retired,
            KeyState::Revoked => SigningKeyState::Revoked,
        };
        v1::SigningKey {
            key_id: key.id,
            public_key: key.public_key,
            state: state.into(),
            created_at: Some(timestamp(key.created_at)),
            activates_at: Some(timestamp(key.activates_at)),
            retired_at: key.retired_at.map(timestamp),
        }
    }
}
