//! Events on their way into the trail: understood, or kept as they came.

use api::events::v1::{Actor, ActorKind as WireActorKind, Event, Outcome as WireOutcome, PositionedEvent};
use kit::{
    Error, Result,
    ids::{self, OrgId},
};
use prost::Message;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{IDENTIFIER, TYPE, filled, floor, valid};
use crate::{
    leaf,
    model::{ActorKind, AuditLog, AuditLogKind, LogId, NewLog, Outcome, micros, time_of},
};

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
            cause_event_id: text(&event.cause_event_id, IDENTIFIER)?,
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
        WireActorKind::Job if is_uuid => Ok((ActorKind::Job, id)),
        WireActorKind::User
        | WireActorKind::ApiKey
        | WireActorKind::Service
        | WireActorKind::Anonymous
        | WireActorKind::Job => Err("its actor's id does not fit the kind"),
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

    use api::events::v1::Resource;
    use prost_types::Timestamp;

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
        type Break = fn(&mut Event, &str);
        let breaks: [(&str, Break); 15] = [
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
}
