//! DriftService.

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
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, Streaming};

use super::{find, hold, listing, no_message, there};
use crate::{
    memory::{Memory, Share},
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
/// As many rows are read at once, and no more once there are as many bytes as a page has: values may be long.
const ROWS_AT_ONCE: usize = 100;
const MOST_PAGE_BYTES: usize = 4 * MIB;

/// Answers DriftService.
pub(crate) struct Drifts {
    kit: Kit,
    /// Seals values.
    seals: KeyRing,
    figures: Figures,
    memory: Memory,
}

impl Drifts {
    /// Values are sealed with `seals`; what checks find is counted from here on.
    pub(crate) fn new(kit: Kit, seals: KeyRing, memory: Memory) -> Self {
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
            memory,
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
        let mut plan = Plan::new(self.memory.share());
        plan.push(&part)?;
        while let Some(message) = messages.message().await? {
            plan.push(&message.plan_json)?;
        }
        arguments.extend_from_slice(blake3::hash(&plan.bytes).as_bytes());
        repeats(&scope, &request_id, arguments)?;
        let (check, _share) = plan.check(self.seals.clone(), &scope, id).await?;
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
    share: Share,
}

impl Plan {
    fn new(share: Share) -> Self {
        Plan {
            bytes: Vec::new(),
            share,
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
        let mib = length.div_ceil(MIB);
        // Its text, and as much again of what is found in it.
        self.share.grow(2 * mib)?;
        // Doubled whenever it is full, it would take more than its share.
        self.bytes.reserve_exact(mib * MIB - self.bytes.len());
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    /// What the plan says has drifted, ready to be written, and the share that this has.
    async fn check(self, seals: KeyRing, scope: &OrgScope, state: StateId) -> Result<(Check, Share)> {
        let org = scope.org();
        let read = spawn_blocking(move || {
            let Plan { bytes, share } = self;
            let drift = plan::read(&bytes);
            drop(bytes);
            let drift = drift.map_err(|wrong| Error::violation("plan_json", wrong))?;
            Ok((Check::new(drift, &seals, org, state), share))
        });
        // What a panic says may hold a part of the plan.
        read.await.map_err(|_| Error::internal("reading a plan panicked"))?
    }
}
