//! What happens to the sessions of an organization when somebody has no more place in it.

use api::events::v1::{SessionRevoked, event::Payload};
use kit::{Result, db::Tx, ids::UserId};

use crate::{model::SessionId, store};

/// The most sessions that are told one by one. Of more the tokens hold nothing either, by the permissions' next version,
/// and none of them is refreshed.
const MOST_TOLD: usize = 10_000;

/// Ends all sessions of the transaction's organization, or one member's, and tells everybody whose tokens may still be
/// about; answers those.
pub(crate) async fn end_sessions(tx: &mut Tx, of: Option<UserId>) -> Result<Vec<SessionId>> {
    let mut ended = store::organization::revoke_sessions(tx, of).await?;
    ended.truncate(MOST_TOLD);
    for session in &ended {
        tx.tell(Payload::SessionRevoked(SessionRevoked {
            session_id: session.to_string(),
        }));
    }
    Ok(ended)
}
