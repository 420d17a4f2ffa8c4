//! ReadStageLogs: a log as a stream that can be taken up again at every offset.
//!
//! Between two looks it holds no connection, and it ends when its attempt has: nobody follows the log of a dead runner.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use api::pipelines::v1::{ReadStageLogsRequest, ReadStageLogsResponse};
use futures_util::{StreamExt, stream, stream::BoxStream};
use kit::{
    Error, Reason, Result,
    auth::scope::{OrgScope, WorkerScope},
    crypto::KeyRing,
    db::Db,
    ids::{OrgId, Principal},
    service::Kit,
};
use secrecy::{ExposeSecret, SecretSlice};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    model::{attempt::Attempt, log::Piece},
    store,
    wire::lease::Read,
};

/// The most bytes of one message.
const MOST_BYTES: usize = 256 << 10;
/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How often a message comes while nothing is written.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// When a follower of a service that stops tries the next one.
const RESUME: Duration = Duration::from_millis(500);

/// What the stream answers.
pub(crate) type LogStream = BoxStream<'static, Result<ReadStageLogsResponse, Status>>;

/// Where logs are read.
#[derive(Clone)]
pub(crate) struct Logs {
    db: Db,
    ring: Arc<KeyRing>,
    /// A stream outlives its call's deadline, which would be the limit of each statement.
    between_calls: WorkerScope,
    /// Ends all following.
    stopping: CancellationToken,
}

impl Logs {
    pub(crate) fn new(kit: &Kit) -> Self {
        Logs {
            db: kit.db.clone(),
            ring: kit.ring.clone(),
            between_calls: kit.scope(),
            stopping: kit.stopping.clone(),
        }
    }
}

/// One reader's place in a log.
struct Reader {
    logs: Logs,
    org: OrgId,
    principal: Principal,
    asked: Read,
    /// The attempt as it was last seen.
    attempt: Option<Attempt>,
    /// Whether more can come.
    ended: bool,
    piece: Option<(i64, SecretSlice<u8>)>,
    spoke: Instant,
    silent: bool,
}

/// The log of a stage's attempt from an offset on, and, followed, until it is complete.
///
/// # Errors
/// INVALID_REQUEST, RESOURCE_NOT_FOUND, LOG_GAP behind the end, CONTENT_CORRUPT, KEY_MISSING; in the stream OVERLOADED
/// when the service stops while the log is followed.
pub(crate) async fn read(logs: &Logs, scope: &OrgScope, request: ReadStageLogsRequest) -> Result<LogStream> {
    let mut reader = Reader {
        logs: logs.clone(),
        org: scope.org(),
        principal: scope.principal(),
        asked: Read::try_from(request)?,
        attempt: None,
        ended: false,
        piece: None,
        spoke: Instant::now(),
        silent: true,
    };
    // Looked at before the stream begins, so that a refusal is the call's status.
    reader.look().await?;
    let stream = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(part)) => {
                let over = part.complete;
                Some((Ok(part), Some(reader).filter(|_| !over)))
            }
            Ok(None) => None,
            Err(error) => Some((Err(Status::from(error)), None)),
        }
    });
    Ok(stream.boxed())
}

impl Reader {
    /// The next message; `None` where the log ends for now and is not followed.
    async fn next(&mut self) -> Result<Option<ReadStageLogsResponse>> {
        loop {
            if let Some(part) = self.part() {
                return Ok(Some(part));
            }
            if !self.unread() {
                let quiet = self.spoke.elapsed() >= KEEP_ALIVE;
                if self.ended || quiet || (self.silent && !self.asked.follow) {
                    return Ok(Some(self.say(Vec::new())));
                }
                if !self.asked.follow {
                    return Ok(None);
                }
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = self.logs.stopping.cancelled() => {}
                }
            }
            if self.asked.follow && self.logs.stopping.is_cancelled() {
                return Err(Error::new(
                    Reason::Overloaded,
                    "the service stops; follow the log from the next offset on",
                )
                .retry_after(RESUME));
            }
            self.look().await?;
        }
    }

    /// Whether more is known to be stored than was read.
    fn unread(&self) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|attempt| self.asked.offset < attempt.log_bytes)
    }

    /// What is left of the piece at hand, as much as a message holds.
    fn part(&mut self) -> Option<ReadStageLogsResponse> {
        let (start, bytes) = self.piece.as_ref()?;
        let from = usize::try_from(self.asked.offset - start).ok()?;
        let rest = bytes.expose_secret().get(from..).filter(|rest| !rest.is_empty())?;
        let content = rest[..rest.len().min(MOST_BYTES)].to_vec();
        Some(self.say(content))
    }

    fn say(&mut self, content: Vec<u8>) -> ReadStageLogsResponse {
        let offset = self.asked.offset;
        self.asked.offset += i64::try_from(content.len()).unwrap_or_default();
        self.spoke = Instant::now();
        self.silent = false;
        ReadStageLogsResponse {
            attempt: self.attempt.as_ref().map_or(0, |attempt| attempt.number),
            offset,
            content,
            next_offset: self.asked.offset,
            complete: self.ended && !self.unread(),
        }
    }

    /// Looks at the attempt, and takes the piece that follows what was read.
    async fn look(&mut self) -> Result<()> {
        let (asked, attempt) = (&self.asked, self.attempt.as_ref());
        let (org, principal) = (self.org, self.principal);
        let number = attempt.map_or(asked.attempt, |attempt| attempt.number);
        let seen = self.logs.db.look(&self.logs.between_calls, async |tx| {
            tx.enter(org, principal).await?;
            let stage = store::stage::find(tx, asked.stage).await?;
            let stage = stage.ok_or_else(|| Error::not_found("stage", asked.stage))?;
            let Some(attempt) = store::log::find_attempt(tx, asked.stage, number).await? else {
                if number != 0 {
                    return Err(Error::not_found("stage_attempt", number));
                }
                return Ok((None, None, stage.status.is_terminal()));
            };
            let piece: Option<Piece> = if asked.offset < attempt.log_bytes {
                store::log::find(tx, attempt.id, asked.offset).await?
            } else {
                None
            };
            let ended = !attempt.status.is_live();
            Ok((Some(attempt), piece, ended))
        });
        let (attempt, piece, ended) = seen.await?;
        let end = attempt.as_ref().map_or(0, |attempt| attempt.log_bytes);
        if asked.offset > end {
            return Err(
                Error::new(Reason::LogGap, format!("the log ends at {end}, before the offset"))
                    .with("expected_offset", end.to_string()),
            );
        }
        let piece = match (&attempt, piece) {
            (Some(attempt), Some(piece)) => {
                let bytes = store::log::open(&self.logs.ring, org, attempt.id, &piece)?;
                Some((piece.start_offset, bytes))
            }
            _ => None,
        };
        if piece.is_none() && asked.offset < end {
            return Err(Error::new(Reason::ContentCorrupt, "a piece of the log is missing"));
        }
        (self.attempt, self.piece, self.ended) = (attempt, piece, ended);
        Ok(())
    }
}
