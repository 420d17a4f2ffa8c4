//! Drift: what is asked for, what peers are told, and drift logs.

mod kinds;
pub(crate) mod rule;
pub(crate) mod summary;
pub(crate) mod view;

use api::{
    events::v1::{DriftChecked, DriftFound, DriftedResource, FoundDrift},
    terraform_state::v1,
};
use kit::{Error, Result, Violations, crypto::KeyRing, ids, page::PageSize};
use prost::Message;
use uuid::Uuid;

use super::value::shown;

use super::{list::Asked, timestamp};
use crate::model::{
    StateId,
    drift::{
        Address, Change, CheckId, DriftFilter, DriftKind, DriftLog, DriftLogId, DriftStatus, Drifted, Severity,
        life::Seen,
    },
    state::{State, StateName},
};

/// The most resources of one event.
const MOST_TOLD: usize = 100;
/// The most bytes that they have together; an event has 64 KiB.
const MOST_TOLD_BYTES: usize = 48 << 10;

/// A state by its id or its name.
#[derive(Debug)]
pub(crate) enum Named {
    /// By its id.
    Id(StateId),
    /// By its name.
    Name(StateName),
}

/// What the first message of a check says beside the plan.
#[derive(Debug)]
pub(crate) struct Detect {
    pub(crate) state: Named,
    pub(crate) request_id: String,
}

impl TryFrom<v1::DetectDriftRequest> for Detect {
    type Error = Error;

    fn try_from(request: v1::DetectDriftRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = if request.state_name.is_empty() {
            ids::required("state_id", &request.state_id, &mut violations).map(Named::Id)
        } else {
            let _: Option<Uuid> = ids::optional("state_id", &request.state_id, &mut violations);
            let name = StateName::parse(&request.state_name);
            let alone = request.state_id.is_empty();
            violations.check(alone, "state_name", "must not be given beside state_id");
            violations.check(!alone || name.is_some(), "state_name", StateName::RULE);
            name.map(Named::Name)
        };
        // A stream's request id is looked at only when all of it is here.
        let _: Option<Uuid> = ids::optional("request_id", &request.request_id, &mut violations);
        Ok(Detect {
            state: violations.finish(state)?,
            request_id: request.request_id,
        })
    }
}

impl TryFrom<v1::ListDriftLogsRequest> for Asked<DriftFilter> {
    type Error = Error;

    fn try_from(request: v1::ListDriftLogsRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let filter = DriftFilter {
            state: ids::optional("state_id", &request.state_id, &mut violations),
            check: ids::optional("check_id", &request.check_id, &mut violations),
            status: kinds::status("status", request.status, &mut violations),
            severity: kinds::severity("severity", request.severity, &mut violations),
        };
        let size = PageSize::parse(request.page_size, &mut violations);
        Ok(Asked {
            filter,
            size: violations.finish(size)?,
            token: request.page_token,
        })
    }
}

/// A drift log that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct One(pub(crate) DriftLogId);

impl TryFrom<v1::GetDriftLogRequest> for One {
    type Error = Error;

    fn try_from(request: v1::GetDriftLogRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("drift_log_id", &request.drift_log_id, &mut violations);
        violations.finish(id).map(One)
    }
}

/// What a person says of a drift log.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) id: DriftLogId,
    pub(crate) status: DriftStatus,
    pub(crate) reason: String,
}

impl Said {
    fn parse(id: &str, status: DriftStatus, reason: String, least: usize) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("drift_log_id", id, &mut violations);
        violations.length("reason", &reason, least, 1_000);
        Ok(Said {
            id: violations.finish(id)?,
            status,
            reason,
        })
    }
}

impl TryFrom<v1::AcknowledgeDriftRequest> for Said {
    type Error = Error;

    fn try_from(request: v1::AcknowledgeDriftRequest) -> Result<Self> {
        Said::parse(&request.drift_log_id, DriftStatus::Acknowledged, request.reason, 0)
    }
}

impl TryFrom<v1::AcceptDriftRequest> for Said {
    type Error = Error;

    fn try_from(request: v1::AcceptDriftRequest) -> Result<Self> {
        Said::parse(&request.drift_log_id, DriftStatus::Accepted, request.reason, 1)
    }
}

impl TryFrom<v1::ResolveDriftRequest> for Said {
    type Error = Error;

    fn try_from(request: v1::ResolveDriftRequest) -> Result<Self> {
        Said::parse(&request.drift_log_id, DriftStatus::Resolved, request.reason, 1)
    }
}

/// What happens to whose drift logs is asked for, and from where on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    pub(crate) state: StateId,
    /// `None` for what happens from now on.
    pub(crate) cursor: Option<i64>,
    pub(crate) until_current: bool,
}

impl TryFrom<v1::WatchDriftRequest> for Watch {
    type Error = Error;

    fn try_from(request: v1::WatchDriftRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::required("state_id", &request.state_id, &mut violations);
        let natural = request.cursor.is_none_or(|cursor| cursor >= 0);
        violations.check(natural, "cursor", "must not be negative");
        Ok(Watch {
            state: violations.finish(state)?,
            cursor: request.cursor,
            until_current: request.until_current,
        })
    }
}

/// Some things, in parts that fit in an event.
fn in_parts<T: Message>(things: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for thing in things {
        // A tag and a length are before each.
        let length = thing.encoded_len() + 4;
        if bytes + length > MOST_TOLD_BYTES || parts.last().is_none_or(|part| part.len() == MOST_TOLD) {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        parts.last_mut().expect("there is a part").push(thing);
    }
    parts
}

/// What peers are told of a check: at least one part, so that they hear of none too.
pub(crate) fn checked(state: &State, check: CheckId, resources: &[Drifted]) -> Vec<DriftChecked> {
    let mut parts = in_parts(resources.iter().map(|resource| DriftedResource {
        address: resource.address.clone().into(),
        deleted: resource.kind == DriftKind::Deleted,
    }));
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let part = |(part, told)| DriftChecked {
        check_id: check.to_string(),
        state_id: state.id.to_string(),
        state_name: state.name.clone().into(),
        design_id: state.design_id.map(|id| id.to_string()).unwrap_or_default(),
        drifted_resources: count(resources.len()),
        part: count(part),
        resources: told,
    };
    parts.into_iter().enumerate().map(part).collect()
}

/// What peers are told of what a check saw that was not there before; nothing where there is nothing.
pub(crate) fn found<'a>(
    state: &State,
    check: CheckId,
    seen: impl Iterator<Item = (&'a Address, DriftKind, DriftLogId, &'a Seen)>,
) -> Vec<DriftFound> {
    let told: Vec<_> = seen.filter(|(.., seen)| seen.told).collect();
    let critical = told.iter().filter(|(.., seen)| seen.severity == Severity::Critical);
    let (findings, critical_findings) = (count(told.len()), count(critical.count()));
    let parts = in_parts(told.iter().map(|(address, kind, log, seen)| FoundDrift {
        drift_log_id: log.to_string(),
        address: address.as_str().to_owned(),
        severity: seen.severity.as_str().to_owned(),
        deleted: *kind == DriftKind::Deleted,
        reopened: seen.reopened,
    }));
    let part = |(part, found)| DriftFound {
        check_id: check.to_string(),
        state_id: state.id.to_string(),
        state_name: state.name.clone().into(),
        design_id: state.design_id.map(|id| id.to_string()).unwrap_or_default(),
        findings,
        critical_findings,
        part: count(part),
        found,
    };
    parts.into_iter().enumerate().map(part).collect()
}

impl From<Change> for v1::DriftChange {
    fn from(change: Change) -> Self {
        let before = change.before.map(v1::DriftStatus::from);
        v1::DriftChange {
            number: change.number,
            drift_log_id: change.drift_log_id.to_string(),
            before: before.unwrap_or_default().into(),
            after: v1::DriftStatus::from(change.after).into(),
            reason: change.reason,
            actor_id: change.actor_id.map(|id| id.to_string()).unwrap_or_default(),
            check_id: change.check_id.map(|id| id.to_string()).unwrap_or_default(),
            changed_at: Some(timestamp(change.changed_at)),
        }
    }
}

/// A number of things of a check, of which there are at most 10,000.
pub(crate) fn count(things: usize) -> i32 {
    i32::try_from(things).expect("a check's things are few")
}

/// A drift log with its values.
///
/// # Errors
/// KEY_MISSING and CONTENT_CORRUPT where they do not open.
pub(crate) fn log(log: DriftLog, ring: &KeyRing) -> Result<v1::DriftLog> {
    let [before, after] = log.values(ring)?.map(|value| value.map(shown));
    Ok(v1::DriftLog {
        id: log.id.to_string(),
        state_id: log.state_id.to_string(),
        check_id: log.check_id.to_string(),
        address: log.address.into(),
        resource_type: log.resource_type.into(),
        kind: v1::DriftKind::from(log.kind).into(),
        path: log.path,
        before,
        after,
        masked: log.masked,
        detected_at: Some(timestamp(log.detected_at)),
        status: v1::DriftStatus::from(log.status).into(),
        severity: v1::DriftSeverity::from(log.severity).into(),
        last_check_id: log.last_check_id.to_string(),
        last_seen_at: Some(timestamp(log.last_seen_at)),
        times_seen: log.times_seen,
        opened_at: Some(timestamp(log.opened_at)),
        resolved_at: log.resolved_at.map(timestamp),
    })
}
