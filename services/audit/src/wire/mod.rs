//! Proto to model and back: requests ([`request`]), events that become rows ([`event`], [`notification`]), and audit logs.

use api::{
    audit::v1::AuditLog as WireLog,
    events::v1::{Actor, ActorKind as WireActorKind, Outcome as WireOutcome, Resource},
};
use prost_types::Timestamp;
use time::OffsetDateTime;

use crate::model::{ActorKind, AuditLog, Outcome};

pub(crate) mod event;
pub(crate) mod notification;
pub(crate) mod request;

/// Most characters of ids and names, and of resource types, as the protos say.
const IDENTIFIER: usize = 128;
const TYPE: usize = 64;

impl From<AuditLog> for WireLog {
    fn from(log: AuditLog) -> Self {
        let actor = log.actor_kind.map(|kind| Actor {
            kind: WireActorKind::from(kind).into(),
            id: log.actor_id.unwrap_or_default(),
        });
        let resource = (log.resource_type.is_some() || log.resource_id.is_some()).then(|| Resource {
            r#type: log.resource_type.unwrap_or_default(),
            id: log.resource_id.unwrap_or_default(),
        });
        WireLog {
            id: log.id.to_string(),
            occurred_at: Some(timestamp(log.occurred_at)),
            recorded_at: Some(timestamp(log.recorded_at)),
            actor,
            action: log.action.unwrap_or_default(),
            resource,
            outcome: log.outcome.map_or(WireOutcome::Unspecified, WireOutcome::from).into(),
            reason: log.reason.unwrap_or_default(),
            request_id: log.request_id.unwrap_or_default(),
            idempotency_key: log.idempotency_key.unwrap_or_default(),
            trace_id: log.trace_id.unwrap_or_default(),
            caller_address: log.caller_address.unwrap_or_default(),
        }
    }
}

fn timestamp(time: OffsetDateTime) -> Timestamp {
    let nanos = i32::try_from(time.nanosecond()).expect("a second has fewer than 2^31 nanoseconds");
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos,
    }
}

impl From<ActorKind> for WireActorKind {
    fn from(kind: ActorKind) -> Self {
        match kind {
            ActorKind::User => WireActorKind::User,
            ActorKind::ApiKey => WireActorKind::ApiKey,
            ActorKind::Service => WireActorKind::Service,
            ActorKind::Anonymous => WireActorKind::Anonymous,
            ActorKind::Job => WireActorKind::Job,
        }
    }
}

impl From<Outcome> for WireOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => WireOutcome::Success,
            Outcome::Failure => WireOutcome::Failure,
            Outcome::Denied => WireOutcome::Denied,
        }
    }
}

/// A valid timestamp in nanoseconds since 1970.
fn valid(timestamp: &Timestamp) -> Option<i128> {
    let nanos = u32::try_from(timestamp.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    // The first and last second that a Timestamp may name.
    let seconds = Some(timestamp.seconds).filter(|seconds| (-62_135_596_800..=253_402_300_799).contains(seconds))?;
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
}

fn floor(nanos: i128, unit: i128) -> i64 {
    i64::try_from(nanos.div_euclid(unit)).expect("valid timestamps fit into 64 bits of microseconds")
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
