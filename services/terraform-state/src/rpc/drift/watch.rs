//! WatchDrift: what happens to a state's drift logs, as a stream that can be taken up again at every change.
//!
//! It looks at the database and at nothing else, and between two looks it holds no connection.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use api::terraform_state::v1::WatchDriftResponse;
use futures_util::{StreamExt, stream, stream::BoxStream};
use kit::{
    Error, Reason, Result,
    auth::scope::{OrgScope, WorkerScope},
    crypto::KeyRing,
    db::Db,
    ids::{OrgId, Principal},
    service::Kit,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    model::drift::{Change, DriftLog},
    rpc::find,
    store,
    wire::drift::{self as wire, Watch},
};

/// How often it looks.
const POLL: Duration = Duration::from_millis(500);
/// How often a message comes while nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a watcher of a service that stops tries the next one.
const RESUME: Duration = Duration::from_millis(500);
/// As many changes are read at once; their values may be long.
const ROWS_AT_ONCE: i64 = 100;

/// What the stream answers.
pub(super) type Changes = BoxStream<'static, Result<WatchDriftResponse, Status>>;

/// One watcher's place.
struct Watcher {
    db: Db,
    seals: KeyRing,
    /// A stream outlives its call's deadline, which would be the limit of each statement.
    between_calls: WorkerScope,
    stopping: CancellationToken,
    org: OrgId,
    principal: Principal,
    watch: Watch,
    cursor: i64,
    read: VecDeque<(Change, DriftLog)>,
    spoke: Option<Instant>,
    /// Whether the last look has found nothing.
    current: bool,
}

/// What happens to a state's drift logs.
///
/// # Errors
/// RESOURCE_NOT_FOUND; in the stream CONTENT_CORRUPT, KEY_MISSING, and OVERLOADED when the service stops.
pub(super) async fn begin(kit: &Kit, seals: &KeyRing, scope: &OrgScope, watch: Watch) -> Result<Changes> {
    // Looked at before the stream begins, so that a refusal is the call's status.
    let cursor = kit.db.look(scope, async |tx| {
        find(tx, scope, watch.state).await?;
        let last = store::drift::last_change(tx, watch.state).await?;
        // A cursor from the future is one of another database; what comes is told from here on.
        Ok(watch.cursor.map_or(last, |cursor| cursor.min(last)))
    });
    let watcher = Watcher {
        db: kit.db.clone(),
        seals: seals.clone(),
        between_calls: kit.scope(),
        stopping: kit.stopping.clone(),
        org: scope.org(),
        principal: scope.principal(),
        watch,
        cursor: cursor.await?,
        read: VecDeque::new(),
        spoke: None,
        current: false,
    };
    let stream = stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(Some(message)) => Some((Ok(message), Some(watcher))),
            Ok(None) => None,
            Err(error) => Some((Err(Status::from(error)), None)),
        }
    });
    Ok(stream.boxed())
}

impl Watcher {
    /// The next message; `None` where all has been told and no more is asked for.
    async fn next(&mut self) -> Result<Option<WatchDriftResponse>> {
        if self.spoke.is_none() {
            return Ok(Some(self.say(None)?));
        }
        loop {
            if let Some(change) = self.read.pop_front() {
                self.cursor = change.0.number;
                return Ok(Some(self.say(Some(change))?));
            }
            if self.current && self.watch.until_current {
                return Ok(None);
            }
            if self.stopping.is_cancelled() {
                return Err(
                    Error::new(Reason::Overloaded, "the service stops; watch from the last cursor on")
                        .retry_after(RESUME),
                );
            }
            if self.current {
                if self.spoke.is_some_and(|spoke| spoke.elapsed() >= KEEP_ALIVE) {
                    return Ok(Some(self.say(None)?));
                }
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = self.stopping.cancelled() => {}
                }
            }
            self.look().await?;
        }
    }

    fn say(&mut self, change: Option<(Change, DriftLog)>) -> Result<WatchDriftResponse> {
        self.spoke = Some(Instant::now());
        let (change, drift_log) = match change {
            Some((change, log)) => (Some(change.into()), Some(wire::log(log, &self.seals)?)),
            None => (None, None),
        };
        Ok(WatchDriftResponse {
            cursor: self.cursor,
            change,
            drift_log,
        })
    }

    async fn look(&mut self) -> Result<()> {
        let (org, principal, state, cursor) = (self.org, self.principal, self.watch.state, self.cursor);
        let rows = self.db.look(&self.between_calls, async |tx| {
            tx.enter(org, principal).await?;
            store::drift::list_changes(tx, state, cursor, ROWS_AT_ONCE).await
        });
        self.read = rows.await?.into();
        self.current = self.read.is_empty();
        Ok(())
    }
}
