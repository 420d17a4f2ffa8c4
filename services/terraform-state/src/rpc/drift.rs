//! DriftService.

use std::{sync::Arc, time::Duration};

use api::{
    events::v1::event::Payload,
    terraform_state::v1::{
        DetectDriftRequest, DetectDriftResponse, DriftLog, ListDriftLogsRequest, ListDriftLogsResponse,
        drift_service_server::DriftService,
    },
};
use kit::{
    Error, Reason, Result,
    auth::scope::{OrgScope, admitted, admitted_stream, repeats},
    crypto::KeyRing,
    db::Tx,
    service::Kit,
};
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};
use tonic::{Request, Response, Status, Streaming};

use super::{find, hold, listing, no_message, there};
use crate::{
    model::{
        StateId,
        drift::{Check, DriftFilter, DriftLogId, Figures, plan},
    },
    store,
    wire::{
        drift::{self as wire, Detect},
        list::{Asked, page},
    },
};

const MIB: usize = 1 << 20;
/// The most bytes of a plan.
const MOST_PLAN_BYTES: usize = 64 * MIB;
/// The most bytes of plans that are held at once, over all calls, in MiB.
const MOST_HELD_MIB: usize = 256;
/// As many rows are read at once, and no more once there are as many bytes as a page has: values may be long.
const ROWS_AT_ONCE: usize = 100;
const MOST_PAGE_BYTES: usize = 4 * MIB;

/// Answers DriftService.
pub(crate) struct Drifts {
    kit: Kit,
    /// Seals values.
    seals: KeyRing,
    figures: Figures,
    held: Arc<Semaphore>,
}

impl Drifts {
    /// Values are sealed with `seals`; what checks find is counted from here on.
    pub(crate) fn new(kit: Kit, seals: KeyRing) -> Self {
        let figures = Figures::default();
        let (checks, resources) = (figures.clone(), figures.clone());
        let metrics = &kit.metrics;
        metrics.reading("drift_checks", "Checks for drift by what they found", move || {
            checks.checks()
        });
        metrics.reading("drifted_resources", "Drifted resources that checks found", move || {
            resources.resources()
        });
        Drifts {
            kit,
            seals,
            figures,
            held: Arc::new(Semaphore::new(MOST_HELD_MIB)),
        }
    }
}

#[tonic::async_trait]
impl DriftService for Drifts {
    async fn detect_drift(
        &self,
        request: Request<Streaming<DetectDriftRequest>>,
    ) -> Result<Response<DetectDriftResponse>, Status> {
        let (scope, mut messages): (OrgScope, _) = admitted_stream(request)?;
        let mut first = messages.message().await?.ok_or_else(no_message)?;
        let part = std::mem::take(&mut first.plan_json);
        let mut arguments = first.encode_to_vec();
        let Detect { state: id, request_id } = first.try_into()?;
        let found = self.kit.db.look(&scope, async |tx| store::state::find(tx, id).await);
        there(&scope, found.await?, id)?;
        let mut plan = Plan::new(&self.held);
        plan.push(&part)?;
        while let Some(message) = messages.message().await? {
            plan.push(&message.plan_json)?;
        }
        arguments.extend_from_slice(blake3::hash(&plan.bytes).as_bytes());
        repeats(&scope, &request_id, arguments)?;
        let check = plan.check(self.seals.clone(), &scope, id).await?;
        let reply = self.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, id).await?;
            store::drift::insert(tx, &check.logs).await?;
            for part in wire::parts(&state, check.id, &check.resources) {
                tx.tell(Payload::DriftChecked(part));
            }
            Ok(DetectDriftResponse {
                check_id: check.id.to_string(),
                drifted_resources: wire::count(check.resources.len()),
                drift_logs: wire::count(check.logs.len()),
            })
        });
        let reply = reply.await?;
        // A repeat is answered with the first one's check.
        if reply.get_ref().check_id == check.id.to_string() {
            self.figures.count(&check.resources);
        }
        Ok(reply)
    }

    async fn list_drift_logs(
        &self,
        request: Request<ListDriftLogsRequest>,
    ) -> Result<Response<ListDriftLogsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<DriftFilter> = request.try_into()?;
        let listing = listing(&self.kit.ring, &scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let logs = self.kit.db.read(&scope, async |tx| {
            match asked.filter.state {
                Some(id) => drop(find(tx, &scope, id).await?),
                // Not to be had by who is bound to a state.
                None => scope.within("state", "")?,
            }
            self.read(tx, &asked, after).await
        });
        let cursor = |log: &DriftLog| log.id.clone();
        let (drift_logs, next_page_token) = page(&listing, asked.size, logs.await?, cursor, |log| log);
        Ok(Response::new(ListDriftLogsResponse {
            drift_logs,
            next_page_token,
        }))
    }
}

impl Drifts {
    /// Logs after one: as many as tell whether there is another page.
    async fn read(
        &self,
        tx: &mut Tx,
        asked: &Asked<DriftFilter>,
        mut after: Option<DriftLogId>,
    ) -> Result<Vec<DriftLog>> {
        let (mut logs, mut bytes) = (Vec::new(), 0);
        while logs.len() <= asked.size.get() && bytes <= MOST_PAGE_BYTES {
            let limit = ROWS_AT_ONCE.min(asked.size.get() + 1 - logs.len());
            let rows = store::drift::list(tx, &asked.filter, after, limit).await?;
            let last = rows.len() < limit;
            for row in rows {
                after = Some(row.id);
                let log = wire::log(row, &self.seals)?;
                bytes += log.encoded_len();
                logs.push(log);
            }
            if last {
                break;
            }
        }
        Ok(logs)
    }
}

/// A plan as it comes in, and its share of what is held.
struct Plan {
    bytes: Vec<u8>,
    share: Option<OwnedSemaphorePermit>,
    all: Arc<Semaphore>,
}

impl Plan {
    fn new(all: &Arc<Semaphore>) -> Self {
        Plan {
            bytes: Vec::new(),
            share: None,
            all: all.clone(),
        }
    }

    fn push(&mut self, part: &[u8]) -> Result<()> {
        if part.len() > MIB {
            return Err(Error::violation("plan_json", "must have at most 1 MiB in each message"));
        }
        let length = self.bytes.len() + part.len();
        if length > MOST_PLAN_BYTES {
            return Err(Error::new(Reason::MessageTooLarge, "a plan has at most 64 MiB"));
        }
        let share = self.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        for _ in share..length.div_ceil(MIB) {
            let more = self.all.clone().try_acquire_owned().map_err(|_| {
                Error::new(Reason::Overloaded, "too many plans are being read; try again")
                    .retry_after(Duration::from_secs(1))
            })?;
            match &mut self.share {
                Some(share) => share.merge(more),
                None => self.share = Some(more),
            }
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    /// What the plan says has drifted, ready to be written.
    async fn check(self, seals: KeyRing, scope: &OrgScope, state: StateId) -> Result<Check> {
        let org = scope.org();
        let read = spawn_blocking(move || {
            let drift = plan::read(&self.bytes);
            drop(self);
            let drift = drift.map_err(|wrong| Error::violation("plan_json", wrong))?;
            Ok(Check::new(drift, &seals, org, state))
        });
        // What a panic says may hold a part of the plan.
        read.await.map_err(|_| Error::internal("reading a plan panicked"))?
    }
}
