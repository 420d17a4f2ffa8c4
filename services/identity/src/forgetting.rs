//! Accounts that were deleted 30 days ago are nobody's any more: what tells of a person in them is overwritten.
//!
//! Several replicas may do this at once: of two, the second finds nothing left to do.

use std::time::Duration;

use api::events::v1::{UserChanged, event::Payload};
use kit::{
    Result,
    auth::scope::WorkerScope,
    db::{Db, Tx},
    service::Kit,
};

use crate::store::{self, user::Anonymized};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// How long it waits while the database does not answer.
const RETRY: Duration = Duration::from_secs(15);
/// The most accounts that are overwritten in one transaction.
const BATCH: usize = 100;

/// Looks for accounts that are due for as long as the service runs, first at its start.
pub(crate) fn run(kit: &Kit) -> impl Future<Output = ()> + Send + 'static {
    let (db, scope) = (kit.db.clone(), kit.scope());
    async move {
        loop {
            let pause = match sweep(&db, &scope).await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(?error, "deleted accounts are not overwritten");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

async fn sweep(db: &Db, scope: &WorkerScope) -> Result<()> {
    loop {
        let overwritten = db.read(scope, async |tx| {
            let overwritten = store::user::anonymize_overdue(tx, BATCH as i32).await?;
            for account in &overwritten {
                tell_anonymized(tx, account);
            }
            Ok(overwritten.len())
        });
        if overwritten.await? < BATCH {
            return Ok(());
        }
    }
}

/// Tells all who knew an account by its names that these are nobody's now.
pub(crate) fn tell_anonymized(tx: &mut Tx, account: &Anonymized) {
    let (first_name, last_name) = store::user::ANONYMOUS;
    for org in &account.former_org_ids {
        let payload = UserChanged {
            user_id: account.id.to_string(),
            first_name: first_name.to_owned(),
            last_name: last_name.to_owned(),
            version: account.version,
        };
        tx.tell_in(*org, Payload::UserChanged(payload));
    }
}
