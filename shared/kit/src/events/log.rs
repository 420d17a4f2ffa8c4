//! A slice's event log, for peers: where it stands, and what comes after a position.
//!
//! Only positioned rows are shown, so what is answered is ascending and dense; where that is no longer possible it
//! says EVENTS_PRUNED rather than leaving something out.

use api::events::v1::{
    HeadRequest, HeadResponse, ReplayRequest, ReplayResponse, event_log_service_server::EventLogService,
};
use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName, dsl, sql_query,
    sql_types::{BigInt, Bytea, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::relay::positioned;
use crate::{
    auth::scope::{PeerScope, WorkerScope, admitted},
    db::{Db, Tx, schema::outbox},
    error::{Error, Reason, Result, Violations},
    ids,
};

/// Most events of one answer, and of one call.
const PAGE: i64 = 500;
const MOST: i64 = 10_000;
/// Envelopes of one answer together; a single larger one goes alone. Clients take messages of 4 MiB.
const PAGE_BYTES: i64 = 1024 * 1024;

/// The log of the worker pool's slice.
#[derive(Clone)]
pub struct EventLog {
    db: Db,
}

/// What a ReplayRequest asks for.
struct Wanted {
    epoch: Option<Uuid>,
    after: i64,
    limit: i64,
    since: Option<OffsetDateTime>,
}

/// How far a replay has come.
struct Progress {
    log: EventLog,
    epoch: Uuid,
    after: i64,
    left: i64,
    next: Option<ReplayResponse>,
}

/// Where a log stands at one moment.
#[derive(QueryableByName)]
pub(super) struct Standing {
    #[diesel(sql_type = SqlUuid)]
    epoch: Uuid,
    #[diesel(sql_type = BigInt)]
    head: i64,
    /// How long the oldest row without a position has waited; 0 for none. While one waits, the head is not the end.
    #[diesel(sql_type = BigInt)]
    pub(super) waiting_ms: i64,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    epoch: Uuid,
    #[diesel(sql_type = BigInt)]
    head: i64,
    #[diesel(sql_type = BigInt)]
    waiting_ms: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
    #[diesel(sql_type = Nullable<Bytea>)]
    envelope: Option<Vec<u8>>,
}

impl EventLog {
    /// The log, read through the worker role's pool.
    pub fn new(worker: Db) -> Self {
        EventLog { db: worker }
    }

    /// Where the log stands.
    pub async fn head(&self) -> Result<HeadResponse> {
        let mut tx = self.begin().await?;
        let standing = standing(&mut tx, self.db.slice()).await;
        tx.roll_back().await;
        let standing = standing?;
        Ok(HeadResponse {
            source: self.db.slice().to_owned(),
            epoch: standing.epoch.to_string(),
            head: standing.head,
            waiting_ms: standing.waiting_ms,
        })
    }

    /// The events after a position, page by page as they are asked for. There is always at least one page, which may
    /// be empty, so that the caller learns epoch and head.
    ///
    /// # Errors
    /// INVALID_REQUEST, EPOCH_CHANGED with the current `epoch`, EVENTS_PRUNED with the `oldest` position kept.
    pub async fn replay(&self, request: ReplayRequest) -> Result<BoxStream<'static, Result<ReplayResponse>>> {
        let wanted = Wanted::try_from(request)?;
        let mut tx = self.begin().await?;
        let start = start(&mut tx, self.db.slice(), &wanted).await;
        tx.roll_back().await;
        let (epoch, after) = start?;
        let mut progress = Progress {
            log: self.clone(),
            epoch,
            after,
            left: wanted.limit,
            next: None,
        };
        // Read ahead of the stream, so that a refusal is the call's status.
        progress.next = Some(progress.page().await?);
        Ok(stream::try_unfold(progress, Progress::step).boxed())
    }

    async fn begin(&self) -> Result<Tx> {
        self.db.begin(&WorkerScope { slice: self.db.slice() }).await
    }
}

impl TryFrom<ReplayRequest> for Wanted {
    type Error = Error;

    fn try_from(request: ReplayRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let epoch = if request.epoch.is_empty() {
            None
        } else {
            Some(ids::parse(&request.epoch))
        };
        violations.check(
            !matches!(epoch, Some(Err(_))),
            "epoch",
            "must be a UUID in lower case with hyphens, or empty",
        );
        violations.check(request.after >= 0, "after", "must not be negative");
        violations.check(request.limit >= 0, "limit", "must not be negative");
        let since = request.since.map(|since| {
            let nanos = u32::try_from(since.nanos).ok()?;
            OffsetDateTime::from_unix_timestamp(since.seconds)
                .ok()?
                .replace_nanosecond(nanos)
                .ok()
        });
        violations.check(
            since != Some(None),
            "since",
            "must be a time between the years 1 and 9999",
        );
        violations.into_result()?;
        Ok(Wanted {
            epoch: epoch.and_then(std::result::Result::ok),
            after: request.after,
            limit: if request.limit == 0 {
                MOST
            } else {
                MOST.min(i64::from(request.limit))
            },
            since: since.flatten(),
        })
    }
}

impl Progress {
    async fn step(mut self) -> Result<Option<(ReplayResponse, Progress)>> {
        if let Some(first) = self.next.take() {
            return Ok(Some((first, self)));
        }
        if self.left == 0 {
            return Ok(None);
        }
        let page = self.page().await?;
        Ok(if page.events.is_empty() {
            None
        } else {
            Some((page, self))
        })
    }

    /// The next page. The last one leaves nothing to ask for.
    async fn page(&mut self) -> Result<ReplayResponse> {
        let slice = self.log.db.slice();
        let mut tx = self.log.begin().await?;
        let rows = rows(&mut tx, slice, self.after, self.left.min(PAGE)).await;
        tx.roll_back().await;
        let rows = rows?;
        let Some(&Row {
            epoch,
            head,
            waiting_ms,
            ..
        }) = rows.as_slice().first()
        else {
            return Err(Error::internal("relay_head has no row"));
        };
        if epoch != self.epoch {
            return Err(epoch_changed(epoch));
        }
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let (Some(position), Some(envelope)) = (row.position, row.envelope) else {
                continue;
            };
            if position != self.after + 1 {
                return Err(pruned(position));
            }
            self.after = position;
            events.push(positioned(slice, epoch, position, &envelope));
        }
        if events.is_empty() && self.after < head {
            return Err(pruned(head + 1));
        }
        self.left = if self.after >= head {
            0
        } else {
            self.left - events.len() as i64
        };
        Ok(ReplayResponse {
            events,
            head,
            epoch: epoch.to_string(),
            waiting_ms,
        })
    }
}

/// The age of the oldest row without a position, which the index of those rows finds at once: ids rise with time.
macro_rules! waiting_ms {
    () => {
        "coalesce((select greatest(1, ceil(extract(epoch from clock_timestamp() - created_at) * 1000))::bigint \
           from outbox where outbox.position is null order by id limit 1), 0) as waiting_ms"
    };
}

/// Where the log stands, as of one statement.
pub(super) async fn standing(tx: &mut Tx, slice: &str) -> Result<Standing> {
    let standing = concat!(
        "select epoch, position as head, ",
        waiting_ms!(),
        " from relay_head where source = $1"
    );
    Ok(sql_query(standing).bind::<Text, _>(slice).get_result(tx).await?)
}

/// The epoch, and the position after which to begin.
async fn start(tx: &mut Tx, slice: &str, wanted: &Wanted) -> Result<(Uuid, i64)> {
    let Standing { epoch, head, .. } = standing(tx, slice).await?;
    if wanted.epoch.is_some_and(|theirs| theirs != epoch) {
        return Err(epoch_changed(epoch));
    }
    let Some(since) = wanted.since else {
        return Ok((epoch, wanted.after));
    };
    let first: Option<i64> = outbox::table
        .filter(outbox::created_at.ge(since))
        .filter(outbox::position.is_not_null())
        .select(dsl::min(outbox::position))
        .first(tx)
        .await?;
    let oldest: Option<i64> = outbox::table.select(dsl::min(outbox::position)).first(tx).await?;
    // Where the oldest event kept is young enough, younger ones than asked for may be gone.
    if let Some(oldest) = oldest.filter(|oldest| *oldest > wanted.after + 1 && first == Some(*oldest)) {
        return Err(pruned(oldest));
    }
    Ok((epoch, wanted.after.max(first.map_or(head, |first| first - 1))))
}

/// Epoch and head with each event after a position; a single row without event when there is none.
async fn rows(tx: &mut Tx, slice: &str, after: i64, limit: i64) -> Result<Vec<Row>> {
    Ok(sql_query(concat!(
        "select h.epoch, h.position as head, e.position, e.envelope, ",
        waiting_ms!(),
        " from relay_head h left join ( \
           select position, envelope, sum(octet_length(envelope)) over (order by position) as bytes \
           from (select position, envelope from outbox where position > $2 order by position limit $3) as next \
         ) e on e.bytes <= $4 or e.position = $2 + 1 \
         where h.source = $1 order by e.position",
    ))
    .bind::<Text, _>(slice)
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(PAGE_BYTES)
    .load(tx)
    .await?)
}

fn epoch_changed(current: Uuid) -> Error {
    Error::new(
        Reason::EpochChanged,
        "the log has another epoch since a restore; its positions mean other events",
    )
    .with("epoch", current.to_string())
}

fn pruned(oldest: i64) -> Error {
    Error::new(Reason::EventsPruned, "events that were asked for are no longer kept").with("oldest", oldest.to_string())
}

#[tonic::async_trait]
impl EventLogService for EventLog {
    type ReplayStream = BoxStream<'static, Result<ReplayResponse, Status>>;

    async fn head(&self, request: Request<HeadRequest>) -> Result<Response<HeadResponse>, Status> {
        let (_, _): (PeerScope, _) = admitted(request)?;
        Ok(Response::new(EventLog::head(self).await?))
    }

    async fn replay(&self, request: Request<ReplayRequest>) -> Result<Response<Self::ReplayStream>, Status> {
        let (_, request): (PeerScope, _) = admitted(request)?;
        Ok(Response::new(
            EventLog::replay(self, request).await?.map_err(Status::from).boxed(),
        ))
    }
}
