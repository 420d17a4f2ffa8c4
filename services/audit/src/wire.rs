//! Proto to model and back: requests, audit logs, and the events that become rows.

use api::{
    audit::v1::{AuditLog as WireLog, GetAuditLogRequest, ListAuditLogsRequest},
    events::v1::{Actor, ActorKind as WireActorKind, Event, Outcome as WireOutcome, PositionedEvent, Resource},
};
use kit::{
    Error, Result, Violations,
    ids::{self, OrgId},
    page::PageSize,
};
use prost::Message;
use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    leaf,
    model::{ActorKind, AuditLog, AuditLogKind, Filter, LogId, NewLog, Outcome, micros, time_of},
};

const IDENTIFIER: usize = 128;
const TYPE: usize = 64;

/// A list request without its page token, which opens only with the filter known.
pub(crate) fn listing(request: &ListAuditLogsRequest) -> Result<(Filter, PageSize)> {
    let mut violations = Violations::new();
    let size = PageSize::parse(request.page_size, &mut violations);
    let since = instant("since", request.since.as_ref(), &mut violations);
    let until = instant("until", request.until.as_ref(), &mut violations);
    if let (Some(since), Some(until)) = (since, until) {
        violations.check(since < until, "until", "must be after since");
    }
    let actor_id = ids::optional("actor_id", &request.actor_id, &mut violations).map(|LogActor(id)| id);
    let mut text = |field: &str, text: &str, most| {
        violations.length(field, text, 0, most);
        filled(text)
    };
    let filter = Filter {
        // Rows have whole microseconds: what a range holds is rounded down, so are its ends.
        since: since.map(|nanos| floor(nanos, 1_000)),
        until: until.map(|nanos| floor(nanos + 999, 1_000)),
        actor_id,
        action: text("action", &request.action, IDENTIFIER),
        resource_type: text("resource_type", &request.resource_type, TYPE),
        resource_id: text("resource_id", &request.resource_id, IDENTIFIER),
        request_id: text("request_id", &request.request_id, IDENTIFIER),
    };
    violations.finish(size.map(|size| (filter, size)))
}

/// The id that a get request names.
pub(crate) fn named(request: &GetAuditLogRequest) -> Result<LogId> {
    let mut violations = Violations::new();
    let id = ids::required("audit_log_id", &request.audit_log_id, &mut violations);
    violations.finish(id)
}

struct LogActor(Uuid);

impl std::str::FromStr for LogActor {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        ids::parse(text).map(LogActor)
    }
}

/// A timestamp of a request in nanoseconds since 1970.
fn instant(field: &str, asked: Option<&Timestamp>, violations: &mut Violations) -> Option<i128> {
    let asked = asked?;
    let nanos = valid(asked);
    violations.check(
        nanos.is_some(),
        field,
        "must be a time in the years 1 to 9999 with 0 to 999,999,999 nanoseconds",
    );
    nanos
}

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

/// An event on its way into an organization's trail.
pub(crate) struct Arrival<'a> {
    delivered: &'a PositionedEvent,
    org: OrgId,
    epoch: Uuid,
    recorded_at: OffsetDateTime,
}

impl<'a> Arrival<'a> {
    /// An event that arrives now.
    ///
    /// # Errors
    /// INTERNAL for an epoch that is no UUID: no cursor can stand in such a log.
    pub(crate) fn new(delivered: &'a PositionedEvent, org: OrgId) -> Result<Self> {
        let epoch = Uuid::parse_str(&delivered.epoch).map_err(Error::internal)?;
        let recorded_at = time_of(micros(OffsetDateTime::now_utc()))
            .ok_or_else(|| Error::internal("the clock is off by millennia"))?;
        Ok(Arrival {
            delivered,
            org,
            epoch,
            recorded_at,
        })
    }

    /// Its row; none if it is not part of the trail.
    pub(crate) fn row(&self) -> Option<NewLog> {
        let Some(event) = &self.delivered.event else {
            return Some(self.unparsed(None));
        };
        if !event.audited {
            return None;
        }
        match self.call(event) {
            Ok(log) => Some(NewLog { log, envelope: None }),
            Err(problem) => {
                tracing::warn!(
                    source = self.delivered.source,
                    position = self.delivered.position,
                    problem,
                    "an event is kept unparsed"
                );
                Some(self.unparsed(ids::parse(&event.event_id).ok()))
            }
        }
    }

    /// The row of the event as it came, under an id that follows from its place and its bytes if it has none of its own.
    pub(crate) fn unparsed(&self, id: Option<Uuid>) -> NewLog {
        let envelope = self
            .delivered
            .event
            .as_ref()
            .map(Event::encode_to_vec)
            .unwrap_or_default();
        let hash = Sha256::digest(&envelope).to_vec();
        let mut log = AuditLog {
            kind: AuditLogKind::Unparsed,
            recorded_at: OffsetDateTime::UNIX_EPOCH,
            occurred_at: OffsetDateTime::UNIX_EPOCH,
            envelope_hash: Some(hash),
            ..self.blank()
        };
        log.id = LogId(id.unwrap_or_else(|| {
            let digest = Sha256::digest(leaf::encode(&log));
            let bytes = digest.first_chunk::<16>().expect("a digest has 32 bytes");
            uuid::Builder::from_custom_bytes(*bytes).into_uuid()
        }));
        log.recorded_at = self.recorded_at;
        log.occurred_at = self.recorded_at;
        NewLog {
            log,
            envelope: Some(envelope),
        }
    }

    /// The row of an event that is complete, within the limits of the protos, and of this organization.
    fn call(&self, event: &Event) -> Result<AuditLog, &'static str> {
        let id = ids::parse(&event.event_id).map_err(|_| "its id is no UUID")?;
        if event.organization_id != self.org.to_string() {
            return Err("it names another organization");
        }
        let occurred_at = event
            .occurred_at
            .as_ref()
            .and_then(valid)
            .and_then(|nanos| time_of(floor(nanos, 1_000)));
        let (actor_kind, actor_id) = actor(event.actor.as_ref().ok_or("it has no actor")?)?;
        let resource = event.resource.clone().unwrap_or_default();
        let outcome = match event.outcome() {
            WireOutcome::Success => Outcome::Success,
            WireOutcome::Failure => Outcome::Failure,
            WireOutcome::Denied => Outcome::Denied,
            WireOutcome::Unspecified => return Err("it has no outcome"),
        };
        let cause_event_id = match event.cause_event_id.as_str() {
            "" => None,
            text => Some(ids::parse(text).map_err(|_| "its cause is no UUID")?),
        };
        Ok(AuditLog {
            id: LogId(id),
            kind: AuditLogKind::Call,
            occurred_at: occurred_at.ok_or("it has no time")?,
            actor_kind: Some(actor_kind),
            actor_id,
            action: Some(text(&event.action, IDENTIFIER)?.ok_or("it has no action")?),
            resource_type: text(&resource.r#type, TYPE)?,
            resource_id: text(&resource.id, IDENTIFIER)?,
            outcome: Some(outcome),
            reason: text(&event.reason, IDENTIFIER)?,
            request_id: text(&event.request_id, IDENTIFIER)?,
            idempotency_key: text(&event.idempotency_key, IDENTIFIER)?,
            trace_id: trace_id(&event.traceparent),
            caller_address: text(&event.caller_address, IDENTIFIER)?,
            cause_event_id,
            chain_depth: i32::try_from(event.chain_depth).map_err(|_| "its chain is too long")?,
            ..self.blank()
        })
    }

    fn blank(&self) -> AuditLog {
        AuditLog {
            org_id: self.org,
            id: LogId(Uuid::nil()),
            kind: AuditLogKind::Call,
            recorded_at: self.recorded_at,
            occurred_at: self.recorded_at,
            source: self.delivered.source.clone(),
            epoch: self.epoch,
            position: self.delivered.position,
            actor_kind: None,
            actor_id: None,
            action: None,
            resource_type: None,
            resource_id: None,
            outcome: None,
            reason: None,
            request_id: None,
            idempotency_key: None,
            trace_id: None,
            caller_address: None,
            cause_event_id: None,
            chain_depth: 0,
            envelope_hash: None,
        }
    }
}

fn actor(actor: &Actor) -> Result<(ActorKind, Option<String>), &'static str> {
    let id = text(&actor.id, IDENTIFIER)?;
    let is_uuid = id.as_deref().is_some_and(|id| ids::parse(id).is_ok());
    match actor.kind() {
        WireActorKind::User if is_uuid => Ok((ActorKind::User, id)),
        WireActorKind::ApiKey if is_uuid => Ok((ActorKind::ApiKey, id)),
        WireActorKind::Service if id.is_some() => Ok((ActorKind::Service, id)),
        WireActorKind::Anonymous if id.is_none() => Ok((ActorKind::Anonymous, None)),
        WireActorKind::User | WireActorKind::ApiKey | WireActorKind::Service | WireActorKind::Anonymous => {
            Err("its actor's id does not fit the kind")
        }
        WireActorKind::Unspecified => Err("its actor is of no known kind"),
    }
}

/// A text that a column and its indexes take; none if it is empty.
fn text(text: &str, most: usize) -> Result<Option<String>, &'static str> {
    if text.contains('\0') {
        return Err("a text has a zero character");
    }
    if text.chars().count() > most {
        Err("a text is too long")
    } else {
        Ok(filled(text))
    }
}

/// The trace id of a W3C `traceparent`; none if it is malformed, as the standard has it.
fn trace_id(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.splitn(4, '-');
    let mut hex = |digits: usize| {
        parts
            .next()
            .filter(|part| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
            .filter(|part| part.len() == digits)
    };
    let (version, trace, span) = (hex(2)?, hex(32)?, hex(16)?);
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    (version != "ff" && !zero(trace) && !zero(span)).then(|| trace.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ORG: OrgId = OrgId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
    const ID: &str = "01900000-0000-7000-8000-000000000002";

    fn event() -> Event {
        Event {
            event_id: ID.to_owned(),
            organization_id: ORG.to_string(),
            occurred_at: Some(Timestamp {
                seconds: 1_767_225_600,
                nanos: 1_999,
            }),
            actor: Some(Actor {
                kind: WireActorKind::User.into(),
                id: ID.to_owned(),
            }),
            action: "designs.CreateDesign".to_owned(),
            outcome: WireOutcome::Success.into(),
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
            audited: true,
            ..Event::default()
        }
    }

    fn delivered(event: Option<Event>) -> PositionedEvent {
        PositionedEvent {
            source: "designs".to_owned(),
            epoch: Uuid::from_u128(7).to_string(),
            position: 3,
            event,
        }
    }

    fn row(event: Option<Event>) -> Option<NewLog> {
        Arrival::new(&delivered(event), ORG).unwrap().row()
    }

    #[test]
    fn a_complete_event_becomes_a_call() {
        let new = row(Some(event())).unwrap();
        assert_eq!((new.log.kind, new.envelope), (AuditLogKind::Call, None));
        assert_eq!(new.log.occurred_at.nanosecond(), 1_000);
        assert_eq!(new.log.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(
            (new.log.actor_kind, new.log.actor_id.as_deref()),
            (Some(ActorKind::User), Some(ID))
        );
        assert_eq!((new.log.resource_type, new.log.reason), (None, None));
    }

    #[test]
    fn what_is_not_audited_is_no_row() {
        assert_eq!(
            row(Some(Event {
                audited: false,
                actor: None,
                ..event()
            })),
            None
        );
    }

    #[test]
    fn what_cannot_be_understood_is_kept_as_it_came() {
        let long = "x".repeat(129);
        let breaks: [(&str, fn(&mut Event, &str)); 16] = [
            ("event id", |event, _| event.event_id = "one".to_owned()),
            ("organization", |event, _| event.organization_id = ID.to_owned()),
            ("no time", |event, _| event.occurred_at = None),
            ("nanoseconds", |event, _| event.occurred_at.as_mut().unwrap().nanos = -1),
            ("year", |event, _| {
                event.occurred_at.as_mut().unwrap().seconds = i64::MAX
            }),
            ("no actor", |event, _| event.actor = None),
            ("kind", |event, _| event.actor.as_mut().unwrap().kind = 99),
            ("user id", |event, _| {
                event.actor.as_mut().unwrap().id = "ada".to_owned()
            }),
            ("anonymous with an id", |event, _| {
                event.actor.as_mut().unwrap().set_kind(WireActorKind::Anonymous)
            }),
            ("no action", |event, _| event.action = String::new()),
            ("long action", |event, long| event.action = long.to_owned()),
            ("zero", |event, _| event.reason = "a\0b".to_owned()),
            ("long type", |event, long| {
                event.resource = Some(Resource {
                    r#type: long[..65].to_owned(),
                    id: String::new(),
                })
            }),
            ("outcome", |event, _| event.outcome = 99),
            ("cause", |event, _| event.cause_event_id = "?".to_owned()),
            ("depth", |event, _| event.chain_depth = u32::MAX),
        ];
        for (what, break_it) in breaks {
            let mut event = event();
            break_it(&mut event, &long);
            let new = row(Some(event.clone())).unwrap();
            assert_eq!(new.log.kind, AuditLogKind::Unparsed, "{what}");
            assert_eq!(new.envelope, Some(event.encode_to_vec()), "{what}");
            assert_eq!(new.log.id.0.to_string() == ID, event.event_id == ID, "{what}");
        }
        assert_eq!(row(None).unwrap().envelope, Some(Vec::new()));
    }

    #[test]
    fn an_event_without_an_id_gets_the_same_one_each_time() {
        let nameless = delivered(Some(Event {
            event_id: String::new(),
            ..event()
        }));
        let id = |delivered: &PositionedEvent| Arrival::new(delivered, ORG).unwrap().row().unwrap().log.id;
        assert_eq!(id(&nameless), id(&nameless));
        assert_eq!(id(&nameless).0.get_version_num(), 8);
        assert_ne!(
            id(&nameless),
            id(&PositionedEvent {
                position: 4,
                ..nameless.clone()
            })
        );
    }

    #[test]
    fn a_row_is_the_same_event_wherever_it_was_delivered() {
        let again = PositionedEvent {
            position: 9,
            epoch: Uuid::from_u128(8).to_string(),
            ..delivered(Some(event()))
        };
        let again = Arrival::new(&again, ORG).unwrap().row().unwrap().log;
        let other = row(Some(Event {
            action: "designs.DeleteDesign".to_owned(),
            ..event()
        }))
        .unwrap()
        .log;
        let first = row(Some(event())).unwrap().log;
        assert!(first.same_event(&again) && !first.same_event(&other));
        let broken = |reason: &str| {
            row(Some(Event {
                actor: None,
                reason: reason.to_owned(),
                ..event()
            }))
            .unwrap()
            .log
        };
        assert!(
            broken("").same_event(&broken(""))
                && !broken("").same_event(&broken("x"))
                && !broken("").same_event(&first)
        );
    }

    #[test]
    fn a_malformed_traceparent_names_no_trace() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let good = format!("00-{trace}-00f067aa0ba902b7-01");
        assert_eq!(trace_id(&good).as_deref(), Some(trace));
        assert_eq!(
            trace_id(&format!("cc-{trace}-00f067aa0ba902b7-01-more")).as_deref(),
            Some(trace)
        );
        let zero = "0".repeat(32);
        for bad in [
            String::new(),
            trace.to_owned(),
            good.to_uppercase(),
            good.replace("00-4", "ff-4"),
            good.replace(trace, &zero),
            good.replace("00f067aa0ba902b7", &zero[..16]),
            good.replace("-00f067aa0ba902b7-01", ""),
        ] {
            assert_eq!(trace_id(&bad), None, "{bad}");
        }
    }

    #[test]
    fn every_violation_of_a_list_request_is_told_at_once() {
        let asked = ListAuditLogsRequest {
            page_size: -1,
            since: Some(Timestamp { seconds: 5, nanos: 0 }),
            until: Some(Timestamp { seconds: 5, nanos: 0 }),
            actor_id: "ada".to_owned(),
            action: "x".repeat(129),
            resource_type: "x".repeat(65),
            resource_id: "a\0".to_owned(),
            request_id: "x".repeat(129),
            ..Default::default()
        };
        let error = listing(&asked).unwrap_err();
        let fields: Vec<_> = error
            .violations()
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "page_size",
                "until",
                "actor_id",
                "action",
                "resource_type",
                "resource_id",
                "request_id"
            ]
        );
        let wrong = Timestamp {
            seconds: 0,
            nanos: 1_000_000_000,
        };
        let asked = ListAuditLogsRequest {
            since: Some(wrong),
            until: Some(Timestamp {
                seconds: i64::MIN,
                nanos: 0,
            }),
            ..Default::default()
        };
        assert_eq!(listing(&asked).unwrap_err().violations().len(), 2);
    }

    #[test]
    fn a_range_finer_than_a_microsecond_loses_no_row() {
        let at = |nanos| Some(Timestamp { seconds: -1, nanos });
        let asked = ListAuditLogsRequest {
            since: at(1_001),
            until: at(1_002),
            ..Default::default()
        };
        let (filter, _) = listing(&asked).unwrap();
        assert_eq!((filter.since, filter.until), (Some(-999_999), Some(-999_998)));
    }
}
