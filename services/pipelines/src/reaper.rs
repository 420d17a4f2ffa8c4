//! Takes leases away whose fence has passed, everywhere the same: under the execution's lock, looked at anew.
//!
//! What could have changed nothing is tried again; of an apply that had begun nobody knows what it did, and nothing
//! tries it again. Several replicas may do this at once: of two, the second finds nothing left to do.

use std::time::Duration;

use kit::{
    Result,
    ids::{OrgId, Principal},
    service::Kit,
};

use crate::{
    doorbell::Doorbell,
    model::{AttemptId, FailureDetail, attempt::End},
    store::{
        self,
        lease::{Expired, Held},
    },
};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// The longest between two looks while the database does not answer.
const LONGEST: Duration = Duration::from_secs(15);
/// The most leases that are listed at a time.
const BATCH: i32 = 50;

/// Looks for expired leases for as long as the service runs.
pub(crate) async fn run(kit: Kit, bell: Doorbell) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match sweep(&kit, &bell).await {
            Ok(()) => EVERY,
            Err(error) => {
                let next = (pause * 2).min(LONGEST);
                tracing::warn!(?error, retry_in_ms = next.as_millis() as u64, "expired leases stand");
                next
            }
        };
    }
}

/// One look at all of them; a lease that cannot be ended keeps no other from its end, and is tried again at the next.
async fn sweep(kit: &Kit, bell: &Doorbell) -> Result<()> {
    let scope = kit.scope();
    let mut after: Option<Expired> = None;
    loop {
        let listed = kit
            .worker
            .look(&scope, async |tx| store::lease::list_expired(tx, after, BATCH).await);
        let expired = listed.await?;
        for lease in &expired {
            match expire(kit, lease.org(), lease.attempt()).await {
                Ok(true) => bell.ring(),
                Ok(false) => {}
                Err(error) => tracing::warn!(lease_id = %lease.attempt(), ?error, "an expired lease stands"),
            }
        }
        let Some(last) = expired.last() else { return Ok(()) };
        after = Some(*last);
    }
}

/// Ends a lease, if its fence has passed still; says whether it did.
async fn expire(kit: &Kit, org: OrgId, attempt: AttemptId) -> Result<bool> {
    let scope = kit.scope();
    let slice = kit.worker.slice();
    let ended = kit.worker.write(&scope, async |tx| {
        tx.enter(org, Principal::Service(slice)).await?;
        let held = store::lease::lock(tx, attempt).await?;
        let Some(held) = held.filter(|held| held.attempt.status.is_live() && held.fenced) else {
            return Ok(false);
        };
        let runner = store::runner::name(tx, held.attempt.runner_id).await?;
        let end = End::Lost(FailureDetail::of(known(&held, runner.as_str())));
        store::lease::update_ended(tx, &kit.ring, &held, end, None).await?;
        tx.acted("ExpireLease", &held.stage);
        Ok(true)
    });
    Ok(ended.await?.into_inner())
}

/// What is known of a lease whose runner is not heard of any more.
fn known(held: &Held, runner: &str) -> String {
    let number = held.attempt.number;
    let began = held.attempt.started_at.is_some();
    let last = held
        .attempt
        .renewed_at
        .replace_nanosecond(0)
        .unwrap_or(held.attempt.renewed_at);
    let last = last.to_offset(time::UtcOffset::UTC);
    let last = format!(
        "{} {:02}:{:02}:{:02} UTC",
        last.date(),
        last.hour(),
        last.minute(),
        last.second()
    );
    if began && crate::model::attempt::changes(held.stage.kind) {
        format!(
            "contact with runner {runner} was lost while it was applying (attempt {number}, last heard of at {last}): \
             nobody knows whether it was done; look at the state and its lock before running it again"
        )
    } else {
        format!("contact with runner {runner} was lost (attempt {number}, last heard of at {last})")
    }
}
