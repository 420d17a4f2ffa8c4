//! One relay per slice: gives the outbox its dense positions, then announces what it placed.
//!
//! Every replica runs it. An advisory lock of the transaction lets one at a time work, and the row lock on `relay_head`
//! fences off whoever lost that lock unnoticed: no position is given twice, none is left out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use api::events::v1::{Announcement, Event, PositionedEvent};
use diesel::{
    QueryableByName, sql_query,
    sql_types::{BigInt, Bool, Bytea, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use prost::Message;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    channel,
    figures::{self, Relayed, add},
    log, off,
};
use crate::{
    auth::scope::WorkerScope,
    db::{Db, Tx},
    error::Result,
    failpoint,
    redis::Redis,
};

/// Most rows that get a position in one transaction.
const BATCH: i64 = 500;
/// The poll while there is something to do, and the longest when there is not.
const BUSY: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_millis(500);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How far turns that place something lie apart, so that under load each places what several calls committed.
const SPACING: Duration = Duration::from_millis(5);
/// Events of one announcement together.
const ANNOUNCED: usize = 64 * 1024;
/// The wire's overhead for one event in an announcement: a tag and a length.
const FRAME: usize = 6;

/// The relay of the worker pool's slice.
pub struct Relay {
    db: Db,
    redis: Redis,
    channel: String,
    figures: Arc<Relayed>,
    next_heartbeat: Instant,
    unheard: bool,
}

/// Where the log stands, and what a turn added to it.
struct Turn {
    epoch: Uuid,
    head: i64,
    placed: Vec<Placed>,
    /// How long the oldest row without a position has waited; 0 for none.
    waiting_ms: i64,
    /// Whether another replica is placing right now.
    elsewhere: bool,
}

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = SqlUuid)]
    epoch: Uuid,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Bool)]
    waiting: bool,
}

#[derive(QueryableByName)]
struct Fence {
    #[diesel(sql_type = SqlUuid)]
    epoch: Uuid,
    #[diesel(sql_type = BigInt)]
    position: i64,
}

#[derive(QueryableByName)]
struct Placed {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Bytea)]
    envelope: Vec<u8>,
}

impl Relay {
    /// A relay on the worker role's pool.
    pub fn new(worker: Db, redis: Redis) -> Self {
        let (channel, figures) = (channel(&redis, worker.slice()), figures::relayed(worker.slice()));
        Relay {
            db: worker,
            redis,
            channel,
            figures,
            next_heartbeat: Instant::now(),
            unheard: false,
        }
    }

    /// Relays until `shutdown`, woken by commits of this process and by a short poll for those of others.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let committed = self.db.committed();
        let mut wait = BUSY;
        let mut failing = false;
        while !shutdown.is_cancelled() {
            let mut confirms = false;
            let begun = Instant::now();
            match self.turn().await {
                Ok(turn) => {
                    failing = false;
                    confirms = !turn.elsewhere;
                    if turn.placed.len() as i64 == BATCH {
                        continue;
                    }
                    if !turn.placed.is_empty() {
                        tokio::time::sleep(SPACING.saturating_sub(begun.elapsed())).await;
                    }
                    wait = if turn.placed.is_empty() && !turn.elsewhere {
                        (wait * 2).min(IDLE)
                    } else {
                        BUSY
                    };
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(slice = self.db.slice(), error = ?error, "the relay cannot work and tries on");
                    }
                    wait = IDLE;
                }
            }
            let heartbeat = self
                .next_heartbeat
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            // A heartbeat that must not be sent is not due either.
            let pause = if confirms { wait.min(heartbeat) } else { wait };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = committed.notified() => wait = BUSY,
                () = tokio::time::sleep(pause) => {}
            }
        }
        // What was committed while the service went down need not wait for the next start.
        if let Err(error) = self.turn().await {
            tracing::info!(slice = self.db.slice(), error = ?error, "the relay's last turn is left to the next start");
        }
    }

    /// Places what is there, up to a batch, and announces it, or the head when a heartbeat is due.
    async fn turn(&mut self) -> Result<Turn> {
        let slice = self.db.slice();
        let mut tx = self.db.begin(&WorkerScope { slice }).await?;
        let turn = match place(&mut tx, slice).await {
            Ok(turn) if turn.placed.is_empty() => {
                tx.roll_back().await;
                turn
            }
            Ok(turn) => {
                tx.commit().await?;
                add(&self.figures.positioned, turn.placed.len());
                failpoint::hit_in("relay.after_commit", slice).await?;
                turn
            }
            Err(error) => {
                tx.roll_back().await;
                return Err(error);
            }
        };
        self.announce(&turn).await;
        Ok(turn)
    }

    /// A heartbeat says that nothing waits, so a turn that left the work to another replica sends none: that replica
    /// may be frozen.
    async fn announce(&mut self, turn: &Turn) {
        let heartbeat = turn.placed.is_empty() && !turn.elsewhere && Instant::now() >= self.next_heartbeat;
        if turn.placed.is_empty() && !heartbeat {
            return;
        }
        self.next_heartbeat = Instant::now() + HEARTBEAT;
        if off("publish", &self.channel) {
            return;
        }
        for announcement in announcements(self.db.slice(), turn) {
            match self.redis.publish(&self.channel, &announcement.encode_to_vec()).await {
                Ok(_) => {
                    add(&self.figures.announcements, 1);
                    if std::mem::replace(&mut self.unheard, false) {
                        tracing::info!(slice = self.db.slice(), "events are announced again");
                    }
                }
                Err(error) => {
                    add(&self.figures.failures, 1);
                    // Positions are the truth: who hears nothing fetches.
                    if !std::mem::replace(&mut self.unheard, true) {
                        tracing::warn!(slice = self.db.slice(), error = ?error, "events cannot be announced; consumers fetch them");
                    }
                    return;
                }
            }
        }
    }
}

/// Gives positions to rows without one, in the order of their ids.
///
/// Each step is a statement of its own, because each must see what was committed before the lock was had.
async fn place(tx: &mut Tx, slice: &'static str) -> Result<Turn> {
    let Waiting {
        epoch,
        position,
        waiting,
    } = sql_query(
        "select epoch, position, exists (select from outbox where outbox.position is null) as waiting \
         from relay_head where source = $1",
    )
    .bind::<Text, _>(slice)
    .get_result(tx)
    .await?;
    let idle = Turn {
        epoch,
        head: position,
        placed: Vec::new(),
        waiting_ms: 0,
        elsewhere: false,
    };
    if !waiting {
        return Ok(idle);
    }
    // A relay that freezes in here holds up all others, so the server ends its transaction soon.
    let fence: Vec<Fence> = sql_query(
        "select epoch, position, set_config('idle_in_transaction_session_timeout', '5s', true) from relay_head \
         where source = $1 and pg_try_advisory_xact_lock(hashtextextended('board3.relay.' || $1, 0)) for update",
    )
    .bind::<Text, _>(slice)
    .load(tx)
    .await?;
    let Some(Fence { epoch, position }) = fence.into_iter().next() else {
        return Ok(Turn {
            elsewhere: true,
            ..idle
        });
    };
    let placed: Vec<Placed> = sql_query(
        "with next as (select id from outbox where position is null order by id limit $3), \
         fresh as (select id, row_number() over (order by id) as number from next), \
         placed as ( \
           update outbox set position = $2 + fresh.number from fresh where outbox.id = fresh.id \
           returning outbox.position, outbox.envelope \
         ), \
         moved as (update relay_head set position = $2 + (select count(*) from placed) where source = $1) \
         select position, envelope from placed order by position",
    )
    .bind::<Text, _>(slice)
    .bind::<BigInt, _>(position)
    .bind::<BigInt, _>(BATCH)
    .load(tx)
    .await?;
    let head = placed.last().map_or(position, |last| last.position);
    let waiting_ms = if placed.len() as i64 == BATCH {
        log::standing(tx, slice).await?.waiting_ms
    } else {
        0
    };
    Ok(Turn {
        epoch,
        head,
        placed,
        waiting_ms,
        elsewhere: false,
    })
}

/// A heartbeat, or the turn's events in announcements of at most 64 KiB; one that is larger alone is only named.
fn announcements(slice: &str, turn: &Turn) -> Vec<Announcement> {
    let empty = |head| Announcement {
        source: slice.to_owned(),
        epoch: turn.epoch.to_string(),
        head,
        events: Vec::new(),
        waiting_ms: turn.waiting_ms,
    };
    if turn.placed.is_empty() {
        return vec![empty(turn.head)];
    }
    let mut announcements: Vec<Announcement> = Vec::new();
    let mut room = 0;
    for placed in &turn.placed {
        let event = positioned(slice, turn.epoch, placed.position, &placed.envelope);
        let size = event.encoded_len() + FRAME;
        match announcements.last_mut() {
            Some(last) if size <= room => {
                room -= size;
                last.head = placed.position;
                last.events.push(event);
            }
            _ => {
                let fits = size <= ANNOUNCED;
                room = if fits { ANNOUNCED - size } else { 0 };
                announcements.push(Announcement {
                    events: fits.then_some(event).into_iter().collect(),
                    ..empty(placed.position)
                });
            }
        }
    }
    announcements
}

/// A row of the log as peers see it. An envelope that cannot be read stays a position without an event: it must not
/// hold up those behind it.
pub(super) fn positioned(slice: &str, epoch: Uuid, position: i64, envelope: &[u8]) -> PositionedEvent {
    let event = Event::decode(envelope).inspect_err(|error| {
        tracing::error!(slice, position, %error, "an envelope of the log cannot be read");
    });
    PositionedEvent {
        source: slice.to_owned(),
        epoch: epoch.to_string(),
        position,
        event: event.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(sizes: &[usize]) -> Turn {
        let placed = sizes.iter().zip(1..).map(|(size, position)| Placed {
            position,
            envelope: Event {
                reason: "x".repeat(*size),
                ..Event::default()
            }
            .encode_to_vec(),
        });
        let placed: Vec<_> = placed.collect();
        Turn {
            epoch: Uuid::nil(),
            head: placed.len() as i64,
            placed,
            waiting_ms: 7,
            elsewhere: false,
        }
    }

    #[test]
    fn announcements_are_dense_small_and_lose_nothing_but_what_is_too_large_alone() {
        let sizes = [10, 30_000, 30_000, 30_000, 65_500, 10, 10];
        let told = announcements("designs", &turn(&sizes));
        assert!(
            told.iter()
                .all(|one| one.events.iter().map(|event| event.encoded_len() + 4).sum::<usize>() <= ANNOUNCED)
        );
        assert!(told.iter().all(|one| one.waiting_ms == 7));
        let heads: Vec<_> = told.iter().map(|one| (one.events.len(), one.head)).collect();
        assert_eq!(heads, [(3, 3), (1, 4), (0, 5), (2, 7)]);
        let positions: Vec<_> = told
            .iter()
            .flat_map(|one| &one.events)
            .map(|event| event.position)
            .collect();
        assert_eq!(positions, [1, 2, 3, 4, 6, 7]);
        assert_eq!(announcements("designs", &turn(&[])).len(), 1);
    }
}
