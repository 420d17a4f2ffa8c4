//! Runs a consumer over one source: effect, inbox row and cursor in one transaction, so each effect is visible once.
//!
//! Every replica runs it. The cursor's row lock orders them; who finds the cursor moved has nothing to do.

use std::{borrow::Cow, collections::HashSet, panic::AssertUnwindSafe, sync::Arc};

use api::events::v1::{Event, PositionedEvent};
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use prost::Message;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    backoff::Backoff,
    channel,
    consumer::Consumer,
    figures::{self, Followed, add},
    follow::{Follower, Start, Step},
    off,
};
use crate::{
    auth::scope::WorkerScope,
    db::{
        Db, Tx,
        schema::{cursors, dead_letters, inbox},
    },
    error::{Error, Reason, Result},
    failpoint,
    ids::{self, OrgId, Principal},
    redis::Redis,
    rpc::client::Peers,
};

/// Events that are tried together.
const TOGETHER: usize = 100;
/// After this many failures an event is a dead letter.
const TRIES: i32 = 5;
/// Events that follow from events that follow from events: no chain is longer.
const DEEPEST: u32 = 4;
/// Characters of an error that a dead letter keeps.
const ERROR_KEPT: usize = 2_000;

/// Applies a source's events to a consumer until `shutdown`, from where the cursor stands.
pub async fn apply(
    worker: Db,
    redis: Redis,
    peers: Peers,
    consumer: Arc<dyn Consumer>,
    source: &'static str,
    shutdown: CancellationToken,
) {
    let figures = figures::followed(consumer.name(), source);
    let channel = channel(&redis, source);
    let applying = Applying {
        db: worker,
        consumer,
        source,
        channel,
        figures,
        shutdown,
    };
    while !applying.shutdown.is_cancelled() {
        let Some(start) = applying.start().await else { return };
        let follower = Follower::new(redis.clone(), peers.clone(), source, start).named(applying.consumer.name());
        applying.follow(follower).await;
    }
}

struct Applying {
    db: Db,
    consumer: Arc<dyn Consumer>,
    source: &'static str,
    channel: String,
    figures: Arc<Followed>,
    shutdown: CancellationToken,
}

/// How a run of events went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Applied,
    /// The cursor stands where these events do not join on: another replica, or an operator, has moved it.
    Elsewhere,
    /// The service goes down.
    Stopped,
}

/// An event that can be applied.
struct Received<'a> {
    id: Uuid,
    org: OrgId,
    event: &'a Event,
    positioned: &'a PositionedEvent,
}

impl<'a> Received<'a> {
    /// # Errors
    /// INTERNAL with what is wrong with it: trying again is no use.
    fn new(positioned: &'a PositionedEvent) -> Result<Self> {
        let event = positioned
            .event
            .as_ref()
            .ok_or_else(|| broken("the envelope cannot be read"))?;
        let id = ids::parse(&event.event_id).map_err(|_| broken("the event's id is no UUID"))?;
        let org = event
            .organization_id
            .parse()
            .map_err(|_| broken("the event's organization is no UUID"))?;
        if event.chain_depth > DEEPEST {
            return Err(broken(format!("the chain of events is longer than {DEEPEST}")));
        }
        Ok(Received {
            id,
            org,
            event,
            positioned,
        })
    }
}

impl Applying {
    /// Where to begin; `None` when the service goes down before the database answers.
    async fn start(&self) -> Option<Start> {
        let mut backoff = Backoff::new();
        loop {
            match self.stored().await {
                Ok(Some((epoch, position))) => {
                    return Some(Start::After {
                        epoch: Some(epoch),
                        position,
                    });
                }
                Ok(None) => {
                    return Some(Start::After {
                        epoch: None,
                        position: 0,
                    });
                }
                Err(error) => self.wait(&mut backoff, &error).await?,
            }
        }
    }

    async fn stored(&self) -> Result<Option<(Uuid, i64)>> {
        let mut tx = self.begin().await?;
        let cursor = self.cursor(&mut tx).await;
        tx.roll_back().await;
        cursor
    }

    /// Applies what the follower brings, until it has to start anew or the service goes down.
    async fn follow(&self, mut follower: Follower) {
        loop {
            let step = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                step = follower.next() => step,
            };
            match step {
                Step::Events(events) => {
                    for run in events.chunks(TOGETHER) {
                        if self.shutdown.is_cancelled() || self.run(run).await != Outcome::Applied {
                            return;
                        }
                    }
                }
                Step::CaughtUp { .. } => {}
                Step::EpochChanged { epoch } => {
                    let mut backoff = Backoff::new();
                    while let Err(error) = self.reconcile(epoch).await {
                        if self.wait(&mut backoff, &error).await.is_none() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Applies a run of events: together, and one by one where that fails.
    async fn run(&self, run: &[PositionedEvent]) -> Outcome {
        if run.len() > 1 && run.iter().all(|event| Received::new(event).is_ok()) {
            match self.tried(run).await {
                Ok(outcome) => return outcome,
                Err(error) => tracing::info!(
                    consumer = self.consumer.name(), source = self.source, error = ?error,
                    "a run of events could not be applied together and is applied one by one"
                ),
            }
        }
        for event in run {
            let outcome = self.alone(event).await;
            if outcome != Outcome::Applied {
                return outcome;
            }
        }
        Outcome::Applied
    }

    /// Applies one event, or buries it after five failures, or at once where trying is no use.
    async fn alone(&self, event: &PositionedEvent) -> Outcome {
        if let Err(error) = Received::new(event) {
            return self.buried(event, &error, 1).await;
        }
        let mut backoff = Backoff::new();
        let mut tries = 0;
        loop {
            match self.tried(std::slice::from_ref(event)).await {
                Ok(outcome) => return outcome,
                Err(error) => {
                    tries += 1;
                    if tries == TRIES {
                        return self.buried(event, &error, tries).await;
                    }
                    if self.wait(&mut backoff, &error).await.is_none() {
                        return Outcome::Stopped;
                    }
                }
            }
        }
    }

    /// Applies events in one transaction, trying for ever while the failure is not theirs.
    async fn tried(&self, run: &[PositionedEvent]) -> Result<Outcome> {
        let mut backoff = Backoff::new();
        loop {
            match self.applied(run).await {
                Err(error) if passing(&error) => {
                    if self.wait(&mut backoff, &error).await.is_none() {
                        return Ok(Outcome::Stopped);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    async fn applied(&self, run: &[PositionedEvent]) -> Result<Outcome> {
        let mut tx = self.begin().await?;
        let outcome = AssertUnwindSafe(self.apply_in(&mut tx, run)).catch_unwind().await;
        // After a panic the transaction is dropped as it stands, which closes its connection.
        let Ok(outcome) = outcome else {
            return Err(broken("the consumer panicked"));
        };
        match outcome {
            Ok(Outcome::Applied) => {
                tx.commit().await?;
                Ok(Outcome::Applied)
            }
            other => {
                tx.roll_back().await;
                other
            }
        }
    }

    async fn apply_in(&self, tx: &mut Tx, run: &[PositionedEvent]) -> Result<Outcome> {
        let Some(run) = self.joining(tx, run).await? else {
            return Ok(Outcome::Elsewhere);
        };
        let Some(last) = run.last() else {
            return Ok(Outcome::Applied);
        };
        let received = run.iter().map(Received::new).collect::<Result<Vec<_>>>()?;
        let mut fresh = self.enter_inbox(tx, &received).await?;
        for one in received {
            // Of an event that the log holds twice, the first counts.
            if !fresh.remove(&one.id) {
                continue;
            }
            let principal = Principal::Service(self.db.slice());
            if (tx.org(), tx.principal()) != (one.org, principal) {
                tx.enter(one.org, principal).await?;
            }
            tx.caused_by(one.event);
            self.consumer.apply(tx, one.positioned).await?;
        }
        self.move_cursor(tx, last).await?;
        failpoint::hit_in("consumer.before_commit", self.consumer.name()).await?;
        Ok(Outcome::Applied)
    }

    /// Locks the cursor; answers the part of the run that comes after it, or `None` where the two do not join.
    async fn joining<'a>(&self, tx: &mut Tx, run: &'a [PositionedEvent]) -> Result<Option<&'a [PositionedEvent]>> {
        let Some(first) = run.first() else { return Ok(Some(run)) };
        let epoch = ids::parse(&first.epoch).map_err(Error::internal)?;
        let (known, position) = match self.lock_cursor(tx).await? {
            Some(cursor) => cursor,
            None => {
                diesel::insert_into(cursors::table)
                    .values((
                        cursors::consumer.eq(self.consumer.name()),
                        cursors::source.eq(self.source),
                        cursors::epoch.eq(epoch),
                        cursors::position.eq(0),
                    ))
                    .on_conflict_do_nothing()
                    .execute(tx)
                    .await?;
                self.lock_cursor(tx)
                    .await?
                    .ok_or_else(|| Error::internal("the cursor vanished"))?
            }
        };
        if known != epoch {
            return Ok(None);
        }
        let run = &run[run.partition_point(|event| event.position <= position)..];
        let joins = run.first().is_none_or(|first| first.position == position + 1) || off("replay", &self.channel);
        Ok(joins.then_some(run))
    }

    async fn lock_cursor(&self, tx: &mut Tx) -> Result<Option<(Uuid, i64)>> {
        let cursor = cursors::table
            .find((self.consumer.name(), self.source))
            .select((cursors::epoch, cursors::position))
            .for_update()
            .first(tx)
            .await
            .optional()?;
        Ok(cursor)
    }

    async fn cursor(&self, tx: &mut Tx) -> Result<Option<(Uuid, i64)>> {
        let cursor = cursors::table
            .find((self.consumer.name(), self.source))
            .select((cursors::epoch, cursors::position))
            .first(tx)
            .await
            .optional()?;
        Ok(cursor)
    }

    /// Notes the events as applied; answers those that were not.
    async fn enter_inbox(&self, tx: &mut Tx, received: &[Received<'_>]) -> Result<HashSet<Uuid>> {
        let mut rows = Vec::with_capacity(received.len());
        for one in received {
            rows.push((
                inbox::consumer.eq(self.consumer.name()),
                inbox::source.eq(self.source),
                inbox::epoch.eq(ids::parse(&one.positioned.epoch).map_err(Error::internal)?),
                inbox::event_id.eq(one.id),
                inbox::position.eq(one.positioned.position),
            ));
        }
        let fresh: Vec<Uuid> = diesel::insert_into(inbox::table)
            .values(rows)
            .on_conflict_do_nothing()
            .returning(inbox::event_id)
            .get_results(tx)
            .await?;
        Ok(fresh.into_iter().collect())
    }

    async fn move_cursor(&self, tx: &mut Tx, last: &PositionedEvent) -> Result<()> {
        diesel::update(cursors::table.find((self.consumer.name(), self.source)))
            .set(cursors::position.eq(last.position))
            .execute(tx)
            .await?;
        Ok(())
    }

    /// Sets an event aside for good, as often as it takes.
    async fn buried(&self, event: &PositionedEvent, error: &Error, tries: i32) -> Outcome {
        let mut backoff = Backoff::new();
        loop {
            match self.bury(event, error, tries).await {
                Ok(outcome) => return outcome,
                Err(failure) => {
                    if self.wait(&mut backoff, &failure).await.is_none() {
                        return Outcome::Stopped;
                    }
                }
            }
        }
    }

    async fn bury(&self, positioned: &PositionedEvent, error: &Error, tries: i32) -> Result<Outcome> {
        let mut tx = self.begin().await?;
        let kept = match self.bury_in(&mut tx, positioned, error, tries).await {
            Ok(Some(kept)) => kept,
            Ok(None) => {
                tx.roll_back().await;
                return Ok(Outcome::Elsewhere);
            }
            Err(failure) => {
                tx.roll_back().await;
                return Err(failure);
            }
        };
        tx.commit().await?;
        if kept {
            return Ok(Outcome::Applied);
        }
        add(&self.figures.dead_letters, 1);
        tracing::error!(
            consumer = self.consumer.name(), source = self.source, position = positioned.position, tries, error = ?error,
            "an event cannot be applied and is a dead letter"
        );
        Ok(Outcome::Applied)
    }

    /// Moves the cursor past an event that the consumer keeps (`true`) or that becomes a dead letter; `None` where it
    /// does not join on.
    async fn bury_in(
        &self,
        tx: &mut Tx,
        positioned: &PositionedEvent,
        error: &Error,
        tries: i32,
    ) -> Result<Option<bool>> {
        let Some(run) = self.joining(tx, std::slice::from_ref(positioned)).await? else {
            return Ok(None);
        };
        if run.is_empty() {
            return Ok(Some(true));
        }
        let event = positioned.event.clone().unwrap_or_default();
        let org = event.organization_id.parse().unwrap_or(OrgId::PLATFORM);
        tx.enter(org, Principal::Service(self.db.slice())).await?;
        match tx
            .savepoint(async |tx| self.consumer.keep(tx, positioned).await)
            .await?
        {
            Ok(true) => {
                self.move_cursor(tx, positioned).await?;
                return Ok(Some(true));
            }
            Ok(false) => {}
            Err(failure) if passing(&failure) => return Err(failure),
            Err(failure) => tracing::error!(
                consumer = self.consumer.name(), source = self.source, error = ?failure, "an event could not be kept"
            ),
        }
        diesel::insert_into(dead_letters::table)
            .values((
                dead_letters::consumer.eq(self.consumer.name()),
                dead_letters::source.eq(self.source),
                dead_letters::epoch.eq(ids::parse(&positioned.epoch).map_err(Error::internal)?),
                dead_letters::position.eq(positioned.position),
                dead_letters::event_id.eq(ids::parse(&event.event_id).unwrap_or_default()),
                dead_letters::envelope.eq(event.encode_to_vec()),
                // Without its causes: what a driver says may quote what the rows hold.
                dead_letters::error.eq(format!("{error}").chars().take(ERROR_KEPT).collect::<String>()),
                dead_letters::attempts.eq(tries),
            ))
            .on_conflict_do_nothing()
            .execute(tx)
            .await?;
        tx.tell_dead_letter(&event, error);
        self.move_cursor(tx, positioned).await?;
        Ok(Some(false))
    }

    /// Takes the log's new epoch: events are read anew from its beginning, and the inbox knows those that took effect.
    async fn reconcile(&self, epoch: Uuid) -> Result<()> {
        tracing::error!(
            consumer = self.consumer.name(), source = self.source, %epoch,
            "the source was restored from a backup; its events are compared with those that took effect here"
        );
        let mut tx = self.begin().await?;
        diesel::update(cursors::table.find((self.consumer.name(), self.source)))
            .set((cursors::epoch.eq(epoch), cursors::position.eq(0)))
            .execute(&mut tx)
            .await?;
        tx.commit().await
    }

    async fn begin(&self) -> Result<Tx> {
        self.db.begin(&WorkerScope { slice: self.db.slice() }).await
    }

    /// Waits before the next try; `None` when the service goes down.
    async fn wait(&self, backoff: &mut Backoff, error: &Error) -> Option<()> {
        if backoff.is_fresh() {
            tracing::warn!(consumer = self.consumer.name(), source = self.source, error = ?error, "events cannot be applied; trying on");
        }
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            () = sleep(backoff.next()) => Some(()),
        }
    }
}

/// A failure in our own words, which a dead letter may keep.
fn broken(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Reason::Internal, what)
}

/// Whether a failure says nothing about the event and ends by itself.
fn passing(error: &Error) -> bool {
    matches!(
        error.reason(),
        Reason::DependencyUnavailable | Reason::Overloaded | Reason::DeadlineExceeded | Reason::Conflict
    )
}
