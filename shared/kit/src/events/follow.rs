//! One source's log, followed in order and without gaps.
//!
//! Announcements over Redis are taken while they join on to what is known; whatever they leave out is fetched from the
//! producer. Nothing is handed out twice or out of order within an epoch.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use api::events::v1::{
    Announcement, HeadRequest, PositionedEvent, ReplayRequest, event_log_service_client::EventLogServiceClient,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use uuid::Uuid;

use super::{
    ask::{Stopped, bounded},
    backoff::Backoff,
    channel,
    figures::{self, Followed, add},
    listen::{Heard, listen},
    off,
};
use crate::{
    ids,
    redis::Redis,
    rpc::client::{PeerChannel, Peers},
};

/// Heartbeats come every second; after this the channel counts as silent.
const SILENT: Duration = Duration::from_secs(3);
/// How often the producer is asked for its head, whatever the channel says, and how often while it is silent.
const ASK: Duration = Duration::from_secs(5);
const ASK_WHILE_SILENT: Duration = Duration::from_secs(1);
/// A confirmation that waited longer than this confirms nothing.
const FRESH: Duration = Duration::from_secs(1);
/// Events that wait longer than this for their position are missing from what is known.
const WAITED_MS: i64 = 1_000;
/// Events fetched in one call, and handed out in one step.
const FETCHED: i32 = 2_000;
const STEP: usize = 500;
/// Announcements that wait while a slow consumer works; later ones are dropped, which is a gap like any other.
const QUEUE: usize = 64;

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// After a position; 0 is the beginning.
    After {
        /// The epoch that the position belongs to; `None` takes the log's.
        epoch: Option<Uuid>,
        /// The last position that is known.
        position: i64,
    },
    /// With the first event written at or after this time.
    Since(SystemTime),
}

/// What a follower has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The next events, ascending and dense.
    Events(Vec<PositionedEvent>),
    /// The producer has just confirmed that nothing comes after what was handed out: nothing with a position, and
    /// nothing that was committed more than a second ago and still has none.
    CaughtUp {
        /// The log's epoch.
        epoch: Uuid,
        /// Its last position.
        head: i64,
    },
    /// The log was restored from a backup: positions start again, and the events of the new epoch follow from its
    /// beginning (or from the time that was asked for). Those known already come again with the same ids.
    EpochChanged {
        /// The new epoch.
        epoch: Uuid,
    },
}

/// Follows one source in a task of its own, which ends with it.
pub struct Follower {
    redis: Redis,
    peers: Peers,
    source: &'static str,
    consumer: &'static str,
    start: Start,
    running: Option<Running>,
    /// The last position handed out; done with when the next step is asked for.
    handed: Option<i64>,
}

struct Running {
    steps: mpsc::Receiver<Step>,
    figures: Arc<Followed>,
    _task: AbortOnDropHandle<()>,
}

impl Follower {
    /// A follower of `source` that starts when first asked.
    pub fn new(redis: Redis, peers: Peers, source: &'static str, start: Start) -> Self {
        Follower {
            redis,
            peers,
            source,
            consumer: "feed",
            start,
            running: None,
            handed: None,
        }
    }

    /// Gives its figures a name of their own; `feed` otherwise.
    #[must_use]
    pub fn named(mut self, consumer: &'static str) -> Self {
        self.consumer = consumer;
        self
    }

    /// The next step. It waits as long as it takes and never fails; dropped while it waits, it has taken nothing.
    pub async fn next(&mut self) -> Step {
        loop {
            let running = self.running.get_or_insert_with(|| {
                let figures = figures::followed(self.consumer, self.source);
                spawn(self.redis.clone(), &self.peers, self.source, self.start, figures)
            });
            if let Some(position) = self.handed.take() {
                running.figures.position.store(position, Relaxed);
            }
            if let Some(step) = running.steps.recv().await {
                self.remember(&step);
                return step;
            }
            tracing::error!(
                source = self.source,
                consumer = self.consumer,
                "a follower panicked and starts again"
            );
            self.running = None;
            sleep(FRESH).await;
        }
    }

    /// Where a follower that has to start again goes on.
    fn remember(&mut self, step: &Step) {
        let reached = match step {
            Step::Events(events) => events.last().map(|last| (ids::parse(&last.epoch).ok(), last.position)),
            Step::CaughtUp { epoch, head } => Some((Some(*epoch), *head)),
            Step::EpochChanged { epoch } if matches!(self.start, Start::After { .. }) => Some((Some(*epoch), 0)),
            Step::EpochChanged { .. } => None,
        };
        if let Some((epoch, position)) = reached {
            self.start = Start::After { epoch, position };
            self.handed = Some(position);
        }
    }
}

fn spawn(redis: Redis, peers: &Peers, source: &'static str, start: Start, figures: Arc<Followed>) -> Running {
    let (out, steps) = mpsc::channel(1);
    let channel = channel(&redis, source);
    let (epoch, cursor, since) = match start {
        Start::After { epoch, position } => (epoch, Some(position), None),
        Start::Since(time) => (None, None, Some(time)),
    };
    if let Some(cursor) = cursor {
        figures.position.store(cursor, Relaxed);
    }
    let now = Instant::now();
    let following = Following {
        client: EventLogServiceClient::new(peers.channel(source)),
        source,
        channel: channel.clone(),
        figures: figures.clone(),
        out,
        epoch,
        cursor,
        since,
        behind: true,
        retry_at: now,
        backoff: Backoff::new(),
        silent: false,
        stuck: false,
        heard_at: now,
        ask_at: now + ASK_WHILE_SILENT,
    };
    let (told, heard) = mpsc::channel(QUEUE);
    let listener = AbortOnDropHandle::new(tokio::spawn(listen(redis, channel, told, figures.clone())));
    let task = tokio::spawn(async move {
        following.run(heard).await;
        drop(listener);
    });
    Running {
        steps,
        figures,
        _task: AbortOnDropHandle::new(task),
    }
}

struct Following {
    client: EventLogServiceClient<PeerChannel>,
    source: &'static str,
    channel: String,
    figures: Arc<Followed>,
    out: mpsc::Sender<Step>,
    epoch: Option<Uuid>,
    /// The last position handed on; unknown until a start by time was answered.
    cursor: Option<i64>,
    since: Option<SystemTime>,
    /// Something may be missing, so the producer is asked, not before `retry_at`.
    behind: bool,
    retry_at: Instant,
    backoff: Backoff,
    silent: bool,
    /// Committed events wait for the producer's relay.
    stuck: bool,
    heard_at: Instant,
    ask_at: Instant,
}

impl Following {
    async fn run(mut self, mut heard: mpsc::Receiver<Heard>) {
        loop {
            if self.behind && Instant::now() >= self.retry_at {
                self.catch_up().await;
            }
            let mut wake = self.ask_at;
            if !self.silent {
                wake = wake.min(self.heard_at + SILENT);
            }
            if self.behind {
                wake = wake.min(self.retry_at);
            }
            tokio::select! {
                // What was heard comes first: it may make asking needless.
                biased;
                message = heard.recv() => match message {
                    Some(message) => self.hear(message, &mut heard).await,
                    None => return,
                },
                () = sleep_until(wake) => self.wake().await,
            }
        }
    }

    /// Takes a message and those queued behind it, and hands on what they bring in one step.
    async fn hear(&mut self, first: Heard, queue: &mut mpsc::Receiver<Heard>) {
        let mut events = Vec::new();
        let mut confirmed = None;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Heard::Announced(announcement, at) => {
                    self.heard_at = self.heard_at.max(at);
                    if std::mem::replace(&mut self.silent, false) {
                        tracing::info!(source = self.source, "the channel speaks again");
                        self.ask_at = Instant::now() + ASK;
                    }
                    confirmed = self.take(announcement, &mut events).filter(|_| at.elapsed() < FRESH);
                }
                Heard::Subscribed => self.fall_behind(),
                Heard::Lost => self.fall_silent(),
            }
            next = if events.len() < STEP {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        if !events.is_empty() {
            add(&self.figures.announced, events.len());
            self.hand_on(Step::Events(events)).await;
        }
        if let (Some(head), Some(epoch)) = (confirmed, self.epoch) {
            self.confirm(epoch, head, 0).await;
        }
    }

    /// Takes what joins on; answers the head if nothing is missing up to it and nothing waits behind it.
    fn take(&mut self, announcement: Announcement, events: &mut Vec<PositionedEvent>) -> Option<i64> {
        let fetching = !off("replay", &self.channel);
        let ours = announcement.source == self.source;
        let epoch = ids::parse(&announcement.epoch).ok().filter(|_| ours)?;
        let known = match self.cursor {
            Some(cursor) if self.epoch == Some(epoch) => cursor,
            // The channel may be late; only the log itself says that its epoch changed, or where a time begins in it.
            _ if fetching => {
                self.fall_behind();
                return None;
            }
            _ => {
                self.epoch = Some(epoch);
                *self.cursor.insert(
                    announcement
                        .events
                        .first()
                        .map_or(announcement.head, |first| first.position - 1),
                )
            }
        };
        if announcement.events.is_empty() && announcement.head < known {
            // Another relay's late heartbeat, or a log that was set back.
            self.fall_behind();
            return None;
        }
        let mut cursor = known;
        for event in announcement.events {
            if event.position > cursor {
                if event.position > cursor + 1 && fetching {
                    break;
                }
                cursor = event.position;
                events.push(event);
            }
        }
        if cursor < announcement.head {
            if fetching {
                self.cursor = Some(cursor);
                self.miss();
                return None;
            }
            cursor = announcement.head;
        }
        self.cursor = Some(cursor);
        (cursor == announcement.head && announcement.waiting_ms <= WAITED_MS).then_some(cursor)
    }

    /// Asks for what time alone brings up: a channel gone silent, and the head.
    async fn wake(&mut self) {
        let now = Instant::now();
        if !self.silent && now >= self.heard_at + SILENT {
            self.fall_silent();
        }
        if now >= self.ask_at {
            let answer = self.head().await;
            self.ask_at = Instant::now() + if self.silent { ASK_WHILE_SILENT } else { ASK };
            let Ok((epoch, head, waiting_ms)) = answer else { return };
            match (self.epoch, self.cursor) {
                (Some(known), Some(cursor)) if known == epoch && cursor == head => {
                    self.confirm(epoch, head, waiting_ms).await;
                }
                (Some(known), Some(cursor)) if known == epoch && cursor < head => self.miss(),
                _ => self.fall_behind(),
            }
        }
    }

    fn miss(&mut self) {
        if !self.behind {
            add(&self.figures.gaps, 1);
        }
        self.fall_behind();
    }

    fn fall_behind(&mut self) {
        if !std::mem::replace(&mut self.behind, true) {
            self.retry_at = Instant::now();
        }
    }

    fn fall_silent(&mut self) {
        if !std::mem::replace(&mut self.silent, true) {
            add(&self.figures.silences, 1);
            tracing::warn!(
                source = self.source,
                "the channel is silent; the producer is asked every second"
            );
            self.ask_at = self.ask_at.min(Instant::now() + ASK_WHILE_SILENT);
            self.fall_behind();
        }
    }

    /// Reads the log to its end once; what hinders that is tried again later.
    async fn catch_up(&mut self) {
        if off("replay", &self.channel) {
            self.behind = false;
            return;
        }
        let stopped = match self.replay().await {
            Ok(()) => {
                self.behind = false;
                self.backoff.reset();
                return;
            }
            Err(Stopped::EpochChanged) => match self.change_epoch().await {
                Ok(()) => return,
                Err(status) => status,
            },
            Err(Stopped::Failed(status)) => status,
        };
        if self.backoff.is_fresh() {
            tracing::warn!(source = self.source, code = ?stopped.code(), error = stopped.message(), "events cannot be fetched; trying on");
        }
        self.retry_at = Instant::now() + self.backoff.next();
    }

    async fn replay(&mut self) -> Result<(), Stopped> {
        loop {
            let request = ReplayRequest {
                epoch: self.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
                after: self.cursor.unwrap_or(0),
                limit: FETCHED,
                since: if self.cursor.is_none() {
                    self.since.map(Into::into)
                } else {
                    None
                },
            };
            let mut pages = bounded(self.client.replay(request)).await?.into_inner();
            let mut head = None;
            while let Some(page) = bounded(pages.message()).await? {
                let epoch = ids::parse(&page.epoch).map_err(|_| Status::data_loss("the log names no epoch"))?;
                if *self.epoch.get_or_insert(epoch) != epoch {
                    return Err(Stopped::EpochChanged);
                }
                let first = page.events.first().map_or(page.head, |first| first.position - 1);
                let mut cursor = *self.cursor.get_or_insert(first);
                for event in &page.events {
                    if event.position != cursor + 1 {
                        return Err(Status::data_loss("the log answered with a gap").into());
                    }
                    cursor = event.position;
                }
                self.cursor = Some(cursor);
                self.figures.head.store(page.head, Relaxed);
                head = Some((page.head, page.waiting_ms));
                if !page.events.is_empty() {
                    add(&self.figures.fetched, page.events.len());
                    self.hand_on(Step::Events(page.events)).await;
                }
            }
            match (head, self.cursor, self.epoch) {
                (Some((head, waiting_ms)), Some(cursor), Some(epoch)) if cursor == head => {
                    self.confirm(epoch, head, waiting_ms).await;
                    return Ok(());
                }
                // We hold what the log no longer knows: it was set back, even if nobody changed its epoch.
                (Some((head, _)), Some(cursor), _) if cursor > head => return Err(Stopped::EpochChanged),
                (Some(_), _, _) => {}
                (None, _, _) => return Err(Status::data_loss("the log answered nothing").into()),
            }
        }
    }

    /// Starts over in the log's present epoch, if it is another one or was set back.
    async fn change_epoch(&mut self) -> Result<(), Status> {
        let (epoch, head, _) = self.head().await?;
        if self.epoch == Some(epoch) && self.cursor.is_some_and(|cursor| cursor <= head) {
            return Ok(());
        }
        tracing::error!(
            source = self.source, old = ?self.epoch, new = %epoch, cursor = self.cursor, head,
            "the log has another epoch: it was restored from a backup, and is read anew"
        );
        add(&self.figures.epoch_changes, 1);
        self.epoch = Some(epoch);
        self.cursor = if self.since.is_some() { None } else { Some(0) };
        self.hand_on(Step::EpochChanged { epoch }).await;
        Ok(())
    }

    /// The log's epoch and head, and how long events without a position have waited.
    async fn head(&mut self) -> Result<(Uuid, i64, i64), Status> {
        let answer = bounded(self.client.head(HeadRequest {})).await?.into_inner();
        let epoch = ids::parse(&answer.epoch).map_err(|_| Status::data_loss("the log names no epoch"))?;
        self.figures.head.store(answer.head, Relaxed);
        Ok((epoch, answer.head, answer.waiting_ms))
    }

    /// Hands on that all up to the head is known, unless committed events have waited for a position for too long.
    async fn confirm(&mut self, epoch: Uuid, head: i64, waiting_ms: i64) {
        let stuck = waiting_ms > WAITED_MS;
        if std::mem::replace(&mut self.stuck, stuck) != stuck && stuck {
            tracing::warn!(
                source = self.source,
                waiting_ms,
                "committed events wait for the producer's relay"
            );
        }
        if stuck {
            self.ask_at = self.ask_at.min(Instant::now() + ASK_WHILE_SILENT);
        } else {
            self.hand_on(Step::CaughtUp { epoch, head }).await;
        }
    }

    async fn hand_on(&self, step: Step) {
        // With the receiver gone this task is about to be aborted.
        let _ = self.out.send(step).await;
    }
}
