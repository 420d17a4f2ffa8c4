//! The events that follow from a call: its audit row, what peers are told, and refusals.

use api::events::v1::{Actor, ActorKind, Event, Outcome, Resource, event::Payload};
use uuid::Uuid;

use super::Db;
use crate::{
    auth::scope::{Begins, Call, Tenancy},
    error::{Error, Result},
    ids::{OrgId, Principal},
};

/// A call that was refused or failed, for the audit trail.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The organization whose trail it belongs to; the platform's for unknown names.
    pub org: OrgId,
    /// Who tried, as far as is known.
    pub actor: Principal,
    /// `Failure` for a handler's, `Denied` for the gate's.
    pub outcome: Outcome,
    /// What it was about: type and id.
    pub about: Option<(&'static str, String)>,
}

impl Db {
    /// Writes a refused or failed call to the audit trail, in a transaction of its own.
    pub async fn refuse(&self, scope: &impl Begins, refusal: Refusal, error: &Error) -> Result<()> {
        let mut tx = self.begin(scope).await?;
        tx.record_refusal(scope, refusal, error).await?;
        tx.end().await
    }
}

impl super::Tx {
    /// Writes a refused or failed call to the audit trail with what the transaction keeps all the same: a refresh token
    /// that was used before is refused and ends its session, both or neither.
    pub async fn record_refusal(&mut self, scope: &impl Begins, refusal: Refusal, error: &Error) -> Result<()> {
        let Some(call) = scope.call() else {
            return Err(Error::internal("only calls are refused"));
        };
        let tenancy = Tenancy {
            org: refusal.org,
            principal: refusal.actor,
        };
        let mut event = audited(call, tenancy, refusal.about);
        event.set_outcome(refusal.outcome);
        event.reason = error.reason_name().to_owned();
        self.write_events(vec![(refusal.org, event)]).await
    }

    /// Commits what is written, and nothing that would follow from the call.
    async fn end(mut self) -> Result<()> {
        self.forget_call();
        self.commit().await
    }
}

/// The audit event of a call that was done.
pub(super) fn audited(call: &Call, tenancy: Tenancy, about: Option<(&'static str, String)>) -> Event {
    Event {
        resource: about.map(|(kind, id)| Resource {
            r#type: kind.to_owned(),
            id,
        }),
        outcome: Outcome::Success.into(),
        audited: true,
        ..event(
            Some(call),
            tenancy.org,
            tenancy.principal,
            call.method.action.to_owned(),
        )
    }
}

/// An event that peers are told beyond the audit trail.
pub(super) fn told(call: Option<&Call>, org: OrgId, principal: Principal, slice: &str, payload: Payload) -> Event {
    let action = call.map_or_else(|| slice.to_owned(), |call| call.method.action.to_owned());
    Event {
        payload: Some(payload),
        outcome: Outcome::Success.into(),
        ..event(call, org, principal, action)
    }
}

/// The audit event of what was done without being called.
pub(super) fn acted(
    call: Option<&Call>,
    tenancy: Tenancy,
    slice: &str,
    verb: &str,
    (kind, id): (&str, String),
) -> Event {
    Event {
        resource: Some(Resource {
            r#type: kind.to_owned(),
            id,
        }),
        outcome: Outcome::Success.into(),
        audited: true,
        ..event(call, tenancy.org, tenancy.principal, format!("{slice}.{verb}"))
    }
}

/// How the action of a dead letter's audit event ends.
pub(super) const DEAD_LETTER: &str = ".DeadLetter";

/// The audit event of an event that a consumer of `slice` could not apply.
pub(super) fn dead_letter(org: OrgId, slice: &'static str, dead: &Event, error: &Error) -> Event {
    Event {
        resource: Some(Resource {
            r#type: "event".to_owned(),
            id: dead.event_id.clone(),
        }),
        outcome: Outcome::Failure.into(),
        reason: error.reason_name().to_owned(),
        audited: true,
        ..event(None, org, Principal::Service(slice), format!("{slice}{DEAD_LETTER}"))
    }
}

/// The event that others follow from.
pub(super) struct Cause {
    event_id: String,
    depth: u32,
    request_id: String,
    traceparent: String,
}

impl Cause {
    pub(super) fn of(event: &Event) -> Self {
        Cause {
            event_id: event.event_id.clone(),
            depth: event.chain_depth,
            request_id: event.request_id.clone(),
            traceparent: event.traceparent.clone(),
        }
    }

    /// Puts the chain, and where no call does the request and its trace, on what follows.
    pub(super) fn mark(&self, event: &mut Event) {
        event.cause_event_id.clone_from(&self.event_id);
        event.chain_depth = self.depth.saturating_add(1);
        if event.action.ends_with(DEAD_LETTER) {
            // It ends the chain, and must itself still be applied.
            event.chain_depth = event.chain_depth.min(4);
        }
        if event.request_id.is_empty() {
            event.request_id.clone_from(&self.request_id);
            event.traceparent.clone_from(&self.traceparent);
        }
    }
}

fn event(call: Option<&Call>, org: OrgId, principal: Principal, action: String) -> Event {
    Event {
        event_id: Uuid::now_v7().to_string(),
        organization_id: org.to_string(),
        occurred_at: Some(std::time::SystemTime::now().into()),
        actor: Some(actor(principal)),
        action,
        request_id: call.map(|call| call.request_id.clone()).unwrap_or_default(),
        idempotency_key: call
            .and_then(Call::repeat)
            .map(|repeat| repeat.request_id.to_string())
            .unwrap_or_default(),
        traceparent: call.map(|call| call.traceparent.clone()).unwrap_or_default(),
        caller_address: call.map(|call| call.caller_address.clone()).unwrap_or_default(),
        ..Event::default()
    }
}

fn actor(principal: Principal) -> Actor {
    let (kind, id) = match principal {
        Principal::User(id) => (ActorKind::User, id.to_string()),
        Principal::ApiKey(id) => (ActorKind::ApiKey, id.to_string()),
        Principal::Job(id) => (ActorKind::Job, id.to_string()),
        Principal::Service(slice) => (ActorKind::Service, slice.to_owned()),
        Principal::Anonymous => (ActorKind::Anonymous, String::new()),
    };
    Actor { kind: kind.into(), id }
}
