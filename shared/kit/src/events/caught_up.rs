//! Waiting until this slice has applied what another has committed, so that a caller finds what it has just made.

use std::{sync::Arc, time::Duration};

use api::events::v1::{HeadRequest, HeadResponse, event_log_service_client::EventLogServiceClient};
use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::consumer::Consumer;
use crate::{
    auth::scope::WorkerScope,
    db::{Db, schema::cursors},
    error::{Error, Result},
    ids,
    rpc::{CURRENT, client::peer_error},
    service::Kit,
};

/// The longest wait in all.
const MOST: Duration = Duration::from_secs(2);
/// How often the source and the cursors are looked at.
const POLL: Duration = Duration::from_millis(10);
/// How much younger than the wait an event without a position must be to count as committed after its beginning.
const SLACK: Duration = Duration::from_millis(100);

/// Who applies whose events here.
pub(super) fn pairs(consumers: &[Arc<dyn Consumer>]) -> Vec<(&'static str, &'static str)> {
    let pairs = |consumer: &Arc<dyn Consumer>| {
        let name = consumer.name();
        consumer.sources().iter().map(move |source| (name, *source))
    };
    consumers.iter().flat_map(pairs).collect()
}

impl Kit {
    /// Waits until this slice's consumers have applied everything that `source` had committed when this was called, at
    /// most 2 s and half of the call's time, and answers whether they have. It never fails: `false` is all that is said
    /// of a source that cannot be asked.
    ///
    /// For a handler that does not find what another slice may just have made, before it says so.
    pub async fn caught_up(&self, source: &'static str) -> bool {
        let left = CURRENT.try_with(|call| call.remaining() / 2).unwrap_or(MOST);
        let waiting = async {
            let (epoch, head) = self.committed_by(source).await?;
            self.until_applied(source, epoch, head).await
        };
        match timeout(left.min(MOST), waiting).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(source, error = ?error, "whether all events are applied cannot be found out");
                false
            }
            Err(_) => false,
        }
    }

    /// Epoch and position up to which the source's log holds everything that is committed now.
    async fn committed_by(&self, source: &'static str) -> Result<(Uuid, i64)> {
        let mut log = EventLogServiceClient::new(self.peers.channel(source));
        let began = Instant::now();
        loop {
            let asked = began.elapsed();
            let standing = log.head(HeadRequest {}).await.map_err(|s| peer_error(source, s))?;
            let HeadResponse {
                epoch,
                head,
                waiting_ms,
                ..
            } = standing.into_inner();
            // The oldest event without a position may be ours, unless it is younger than this wait: under load there
            // is always a younger one.
            let waits = Duration::from_millis(u64::try_from(waiting_ms).unwrap_or(0));
            if waits.is_zero() || waits + SLACK <= asked {
                return Ok((ids::parse(&epoch).map_err(Error::internal)?, head));
            }
            sleep(POLL).await;
        }
    }

    async fn until_applied(&self, source: &'static str, epoch: Uuid, head: i64) -> Result<()> {
        if head == 0 {
            return Ok(());
        }
        loop {
            // Not there until the consumers run.
            if let Some(pairs) = self.consumed.get() {
                let of_source = pairs.iter().filter(|(_, from)| *from == source);
                let consumers: Vec<&str> = of_source.map(|(name, _)| *name).collect();
                if applied(&self.worker, &consumers, source, epoch, head).await? {
                    return Ok(());
                }
            }
            sleep(POLL).await;
        }
    }
}

/// Whether each consumer's cursor has come to a position. The cursors are the worker role's.
async fn applied(worker: &Db, consumers: &[&str], source: &str, epoch: Uuid, head: i64) -> Result<bool> {
    let mut tx = worker.begin(&WorkerScope { slice: worker.slice() }).await?;
    let there = cursors::table
        .filter(cursors::consumer.eq_any(consumers))
        .filter(cursors::source.eq(source))
        .filter(cursors::epoch.eq(epoch))
        .filter(cursors::position.ge(head))
        .count()
        .get_result::<i64>(&mut tx)
        .await;
    tx.roll_back().await;
    Ok(there? == consumers.len() as i64)
}
