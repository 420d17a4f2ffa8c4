//! The caller's sessions.

use api::identity::v1::{self, RevokeSessionRequest};
use kit::{
    Result, Violations,
    ids::{self, OrgId},
};

use super::timestamp;
use crate::model::{SessionId, StandingSession};

pub(crate) fn session_to_revoke(request: &RevokeSessionRequest) -> Result<SessionId> {
    let mut violations = Violations::new();
    let session = ids::required("session_id", &request.session_id, &mut violations);
    violations.finish(session)
}

/// Longer texts are no tokens of ours; access tokens are the longest.
const LONGEST_TOKEN: usize = 2_048;

/// Any text that could be a token or a key.
pub(crate) fn token_to_look_at(text: String) -> Result<String> {
    let mut violations = Violations::new();
    violations.check(!text.is_empty(), "token", "is required");
    let short = text.chars().count() <= LONGEST_TOKEN;
    violations.check(short, "token", "must have at most 2,048 characters");
    violations.into_result()?;
    Ok(text)
}

/// A session, seen with a token of `current`. One of the platform's organization is of nobody's organization, unless its
/// user is a member there.
pub(crate) fn session(session: StandingSession, current: SessionId, of_platform: bool) -> v1::Session {
    let organization_id = if session.org_id == OrgId::PLATFORM && !of_platform {
        String::new()
    } else {
        session.org_id.to_string()
    };
    v1::Session {
        id: session.id.to_string(),
        organization_id,
        device: session.device,
        address: session.address,
        created_at: Some(timestamp(session.created_at)),
        last_seen_at: Some(timestamp(session.last_seen_at)),
        expires_at: Some(timestamp(session.expires_at)),
        current: session.id == current,
    }
}
