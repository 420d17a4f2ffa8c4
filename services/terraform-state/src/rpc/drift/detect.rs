//! DetectDrift: a plan or a second state comes in, and what it found is written as one check.

use api::{
    events::v1::event::Payload,
    terraform_state::v1::{DetectDriftRequest, DetectDriftResponse},
};
use kit::{
    Error, Reason, Result, Violations,
    auth::scope::{OrgScope, repeats},
    db::Tx,
};
use prost::Message;
use tokio::task::spawn_blocking;
use tonic::{Response, Status, Streaming};

use super::{Drifts, MIB};
use crate::{
    backend::touchable,
    history::{self, Whole},
    memory::Share,
    model::{
        StateId,
        difference::Layout,
        drift::{
            DriftLogId, DriftStatus, Drifted, Printer, Severity,
            check::{Check, CheckRow},
            life::{Outcome, decide},
            plan,
        },
        state::State,
    },
    rpc::{find, hold, no_message, there},
    store::{self, drift::By},
    wire::drift::{self as wire, Detect, Named},
};

impl Drifts {
    /// The whole of the call.
    pub(super) async fn detect(
        &self,
        scope: OrgScope,
        mut messages: Streaming<DetectDriftRequest>,
    ) -> Result<Response<DetectDriftResponse>, Status> {
        let mut first = messages.message().await?.ok_or_else(no_message)?;
        let mut observation = Observation::new(self.backend.memory.share());
        let parts = [
            std::mem::take(&mut first.plan_json),
            std::mem::take(&mut first.observed_state),
        ];
        let mut arguments = first.encode_to_vec();
        let Detect { state, request_id } = first.try_into()?;
        let found = self.backend.kit.db.look(&scope, async |tx| match &state {
            Named::Id(id) => store::state::find(tx, *id).await,
            Named::Name(name) => {
                let found = store::state::find_named(tx, name).await?;
                Ok(found.filter(|state| state.deleted_at.is_none()))
            }
        });
        let found = found.await?;
        let id = match state {
            Named::Id(id) => there(&scope, found, id)?.id,
            Named::Name(name) => {
                let found = found.ok_or_else(|| Error::not_found("state", name.as_str()))?;
                touchable(&scope, &found)?;
                found.id
            }
        };
        observation.push(&parts)?;
        while let Some(message) = messages.message().await? {
            observation.push(&[message.plan_json, message.observed_state])?;
        }
        arguments.extend_from_slice(observation.of.field().as_bytes());
        arguments.extend_from_slice(blake3::hash(&observation.bytes).as_bytes());
        repeats(&scope, &request_id, arguments)?;
        let printer = Printer {
            ring: self.backend.ring.clone(),
            org: scope.org(),
            state: id,
        };
        let known = match observation.of {
            Of::Plan => None,
            Of::State => Some(self.known(&scope, id).await?),
        };
        let (check, _share) = observation.check(known, printer.clone()).await?;
        let mut resources = Vec::new();
        let reply = self.backend.kit.db.write(&scope, async |tx| {
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

    /// The current content of a state, which a second one is compared with.
    async fn known(&self, scope: &OrgScope, id: StateId) -> Result<Whole> {
        let reading = self.backend.kit.db.look(scope, async |tx| {
            let state = find(tx, scope, id).await?;
            let version = history::version(tx, &state, None).await?;
            history::open_to_us(&version, "state_id")?;
            self.backend.read(tx, &state, version).await
        });
        self.backend.whole(reading.await?).await
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
    store::drift::update_prints(tx, &outcome.renewed).await?;
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

/// What reality is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Plan,
    State,
}

impl Of {
    const fn field(self) -> &'static str {
        match self {
            Of::Plan => "plan_json",
            Of::State => "observed_state",
        }
    }

    const fn most_bytes(self) -> usize {
        match self {
            Of::Plan => 64 * MIB,
            Of::State => history::MOST_COMPARED_BYTES as usize,
        }
    }
}

/// A plan or a state as it comes in, and its share of what is held.
struct Observation {
    of: Of,
    bytes: Vec<u8>,
    share: Share,
}

impl Observation {
    fn new(share: Share) -> Self {
        Observation {
            of: Of::Plan,
            bytes: Vec::new(),
            share,
        }
    }

    /// Takes a message's parts of a plan and of a state, of which one is empty in the whole stream.
    fn push(&mut self, [plan, state]: &[Vec<u8>; 2]) -> Result<()> {
        let (of, part) = if state.is_empty() {
            (Of::Plan, plan)
        } else {
            (Of::State, state)
        };
        if part.is_empty() {
            return Ok(());
        }
        if self.bytes.is_empty() {
            self.of = of;
        }
        let mut violations = Violations::new();
        let alone = self.of == of && (plan.is_empty() || state.is_empty());
        violations.check(alone, Of::State.field(), "must not be given beside plan_json");
        violations.check(part.len() <= MIB, of.field(), "must have at most 1 MiB in each message");
        violations.into_result()?;
        let length = self.bytes.len() + part.len();
        if length > of.most_bytes() {
            let most = of.most_bytes() / MIB;
            return Err(Error::new(
                Reason::MessageTooLarge,
                format!("{} has at most {most} MiB", of.field()),
            ));
        }
        let mib = length.div_ceil(MIB);
        // Its text, and as much again of what is found in it.
        self.share.grow(2 * mib)?;
        // Doubled whenever it is full, it would take more than its share.
        self.bytes.reserve_exact(mib * MIB - self.bytes.len());
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    /// What it says has drifted, from what is known of a state where that is compared, ready to be written, and the share
    /// that this has.
    async fn check(self, known: Option<Whole>, printer: Printer) -> Result<(Check, Share)> {
        let read = spawn_blocking(move || {
            let Observation { of, bytes, share } = self;
            let drift = match &known {
                None => plan::read(&bytes, &printer),
                Some(known) => {
                    let odd = || {
                        Error::violation(
                            "state_id",
                            "is of a content that is not laid out as Terraform writes states",
                        )
                    };
                    let known = Layout::read(known.text()).ok_or_else(odd)?;
                    plan::observed::read(&known, &bytes, &printer)
                }
            };
            drop(bytes);
            let drift = drift.map_err(|wrong| Error::violation(of.field(), wrong))?;
            Ok((Check::new(drift, &printer), share))
        });
        // What a panic says may hold a part of the plan.
        read.await
            .map_err(|_| Error::internal("reading what was observed panicked"))?
    }
}
