//! DetectDrift: a plan comes in, and what it found is written as one check.

use api::{
    events::v1::event::Payload,
    terraform_state::v1::{DetectDriftRequest, DetectDriftResponse},
};
use kit::{
    Error, Reason, Result,
    auth::scope::{OrgScope, repeats},
    db::Tx,
};
use prost::Message;
use tokio::task::spawn_blocking;
use tonic::{Response, Status, Streaming};

use super::{Drifts, MIB};
use crate::{
    memory::Share,
    model::{
        drift::{
            DriftLogId, DriftStatus, Drifted, Printer, Severity,
            check::{Check, CheckRow},
            life::{Outcome, decide},
            plan,
        },
        state::State,
    },
    rpc::{hold, no_message, there},
    store::{self, drift::By},
    wire::drift::{self as wire, Detect},
};

/// The most bytes of a plan.
const MOST_PLAN_BYTES: usize = 64 * MIB;

impl Drifts {
    /// The whole of the call.
    pub(super) async fn detect(
        &self,
        scope: OrgScope,
        mut messages: Streaming<DetectDriftRequest>,
    ) -> Result<Response<DetectDriftResponse>, Status> {
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
        let printer = Printer {
            ring: self.seals.clone(),
            org: scope.org(),
            state: id,
        };
        let (check, _share) = plan.check(printer.clone()).await?;
        let mut resources = Vec::new();
        let reply = self.kit.db.write(&scope, async |tx| {
            let state = hold(tx, &scope, id).await?;
            let (reply, drifted) = write(tx, &state, &printer, &check).await?;
            resources = drifted;
            Ok(reply)
        });
        let reply = reply.await?;
        // A repeat is answered with the first one's check.
        if reply.get_ref().check_id == check.id.to_string() {
            self.figures.count(check.errored, &resources);
        }
        Ok(reply)
    }
}

/// Writes a check of a state that is held, and what follows from it; says which resources have drifted.
async fn write(
    tx: &mut Tx,
    state: &State,
    printer: &Printer,
    check: &Check,
) -> Result<(DetectDriftResponse, Vec<Drifted>)> {
    let mut reply = DetectDriftResponse {
        check_id: check.id.to_string(),
        errored: check.errored,
        normalised_resources: wire::count(check.tally.normalised),
        moved_resources: wire::count(check.tally.moved),
        unapplied_resources: wire::count(check.tally.unapplied),
        failed_checks: wire::count(check.tally.failed_checks),
        ..Default::default()
    };
    let mut drifted = Vec::new();
    if check.errored {
        insert_check(tx, printer, check, &reply).await?;
        return Ok((reply, drifted));
    }
    let prints: Vec<Vec<u8>> = check
        .findings
        .iter()
        .flat_map(|it| &it.prints)
        .map(|it| it.to_vec())
        .collect();
    let known = store::drift::list_known(tx, state.id, &prints).await?;
    let rules = store::drift::list_rules_for(tx, state.id).await?;
    let outcome = decide(&known, &check.findings, &rules);
    let (new, logs) = check.rows(&outcome);
    drifted = check.drifted(&outcome.seen);

    let stands = |status| outcome.seen.iter().filter(|seen| seen.status == status).count();
    reply.drifted_resources = wire::count(drifted.len());
    reply.drift_logs = wire::count(outcome.seen.len());
    reply.new_drift_logs = wire::count(new.len());
    reply.reopened_drift_logs = wire::count(outcome.seen.iter().filter(|seen| seen.reopened).count());
    reply.resolved_drift_logs = wire::count(outcome.resolved);
    reply.accepted_drift_logs = wire::count(stands(DriftStatus::Accepted));
    reply.ignored_drift_logs = wire::count(stands(DriftStatus::Ignored));

    insert_check(tx, printer, check, &reply).await?;
    store::drift::insert(tx, (state.id, check.id), &new).await?;
    let seen: Vec<DriftLogId> = outcome.seen.iter().filter_map(|seen| seen.known).collect();
    if !seen.is_empty() {
        store::drift::update_seen(tx, &seen, check.id).await?;
    }
    store::drift::update_moves(tx, &outcome.moves).await?;
    judged(tx, &outcome).await?;
    let opened = new.iter().map(|log| (log.id, None, log.status));
    let moved = outcome.moves.iter().map(|it| (it.id, Some(it.before), it.after));
    let changes: Vec<_> = opened.chain(moved).collect();
    store::drift::insert_changes(tx, state.id, &changes, By::Check(check.id)).await?;
    store::drift::insert_sightings(tx, check.id, &logs).await?;
    store::drift::replace_view(tx, (state.id, check.id), &check.view).await?;
    tell(tx, state, check, &outcome, &logs, &drifted);
    Ok((reply, drifted))
}

async fn insert_check(tx: &mut Tx, printer: &Printer, check: &Check, reply: &DetectDriftResponse) -> Result<()> {
    let row = CheckRow {
        org_id: printer.org,
        id: check.id,
        state_id: printer.state,
        number: 0,
        errored: check.errored,
        drifted_resources: reply.drifted_resources,
        normalised_resources: reply.normalised_resources,
        moved_resources: reply.moved_resources,
        unapplied_resources: reply.unapplied_resources,
        failed_checks: reply.failed_checks,
        truncated: check.truncated,
    };
    store::drift::insert_check(tx, row).await
}

/// Writes how bad known drift logs are now.
async fn judged(tx: &mut Tx, outcome: &Outcome) -> Result<()> {
    for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
        let of = outcome.severities.iter().filter(|(_, now)| *now == severity);
        let ids: Vec<DriftLogId> = of.map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            store::drift::update_severity(tx, &ids, severity).await?;
        }
    }
    Ok(())
}

fn tell(tx: &mut Tx, state: &State, check: &Check, outcome: &Outcome, logs: &[DriftLogId], drifted: &[Drifted]) {
    for part in wire::checked(state, check.id, drifted) {
        tx.tell(Payload::DriftChecked(part));
    }
    let seen = check.findings.iter().zip(logs).zip(&outcome.seen);
    let seen = seen.map(|((finding, log), seen)| (&finding.address, finding.kind, *log, seen));
    for part in wire::found(state, check.id, seen) {
        tx.tell(Payload::DriftFound(part));
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
    async fn check(self, printer: Printer) -> Result<(Check, Share)> {
        let read = spawn_blocking(move || {
            let Plan { bytes, share } = self;
            let drift = plan::read(&bytes, &printer);
            drop(bytes);
            let drift = drift.map_err(|wrong| Error::violation("plan_json", wrong))?;
            Ok((Check::new(drift, &printer), share))
        });
        // What a panic says may hold a part of the plan.
        read.await.map_err(|_| Error::internal("reading a plan panicked"))?
    }
}
