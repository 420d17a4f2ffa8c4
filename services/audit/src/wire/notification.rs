//! Notifications: what events tell of, what callers ask for, and what they are answered.

use api::{
    audit::v1::{
        ListNotificationsRequest, MarkReadRequest, Notification as WireNotification,
        NotificationKind as WireNotificationKind,
    },
    events::v1::{DriftFound, Event, ExecutionChanged, Resource, event::Payload},
};
use kit::{Error, Result, Violations, ids, page::PageSize};

use super::{IDENTIFIER, filled, floor, timestamp, valid};
use crate::model::{
    notification::{Marked, Notification, NotificationFilter, NotificationId, NotificationKind, Reader, Title},
    time_of,
};

/// The most notifications that are marked at once.
const MOST_MARKED: usize = 1_000;

/// The notification that an event is; none where it tells of nothing that people should hear of.
///
/// # Errors
/// INTERNAL for an event that no producer of ours writes.
pub(crate) fn told(event: &Event) -> Result<Option<Notification>> {
    let told = match &event.payload {
        Some(Payload::DriftFound(found)) => drift(found),
        Some(Payload::ExecutionChanged(changed)) => execution(changed),
        _ => None,
    };
    let Some((kind, title, resource, design)) = told else {
        return Ok(None);
    };
    let malformed = |what: &'static str| Error::internal(format!("{what} of an event to notify of is malformed"));
    let occurred_at = event.occurred_at.as_ref().and_then(valid);
    let occurred_at = occurred_at.and_then(|nanos| time_of(floor(nanos, 1_000)));
    Ok(Some(Notification {
        id: event.event_id.parse().map_err(|_| malformed("the id"))?,
        kind,
        title: Title::of(&title),
        resource_type: resource.r#type,
        resource_id: Some(resource.id)
            .filter(|id| (1..=IDENTIFIER).contains(&id.len()) && !id.contains('\0'))
            .ok_or_else(|| malformed("the resource"))?,
        design_id: filled(design)
            .map(|design| ids::parse(&design))
            .transpose()
            .map_err(|_| malformed("the design"))?,
        occurred_at: occurred_at.ok_or_else(|| malformed("the time"))?,
    }))
}

type Told<'a> = (NotificationKind, String, Resource, &'a str);

/// Of findings that are told in several parts, the first speaks for all.
fn drift(found: &DriftFound) -> Option<Told<'_>> {
    let DriftFound {
        state_id,
        state_name,
        design_id,
        findings,
        critical_findings,
        part,
        ..
    } = found;
    let told = match findings {
        ..=0 => return None,
        1 => format!("Drift in state {state_name}: 1 new finding"),
        many => format!("Drift in state {state_name}: {many} new findings"),
    };
    let title = match critical_findings {
        ..=0 => told,
        critical => format!("{told}, {critical} critical"),
    };
    let told = (
        NotificationKind::DriftDetected,
        title,
        about("state", state_id),
        design_id.as_str(),
    );
    (*part == 0).then_some(told)
}

fn execution(changed: &ExecutionChanged) -> Option<Told<'_>> {
    let ExecutionChanged {
        execution_id,
        pipeline_name,
        design_id,
        status,
        ..
    } = changed;
    let (kind, title) = match status.as_str() {
        "failed" => (
            NotificationKind::ExecutionFailed,
            format!("An execution of pipeline {pipeline_name} failed"),
        ),
        "outcome_unknown" => (
            NotificationKind::ExecutionOutcomeUnknown,
            format!("An execution of pipeline {pipeline_name} lost contact with its runner; what it did is not known"),
        ),
        _ => return None,
    };
    Some((kind, title, about("execution", execution_id), design_id.as_str()))
}

fn about(kind: &str, id: &str) -> Resource {
    Resource {
        r#type: kind.to_owned(),
        id: id.to_owned(),
    }
}

/// A list request without its page token, which opens only with the filter known.
pub(crate) fn listing(request: &ListNotificationsRequest, reader: Reader) -> Result<(NotificationFilter, PageSize)> {
    let mut violations = Violations::new();
    let size = PageSize::parse(request.page_size, &mut violations);
    let unread_only = request.unread_only;
    violations.finish(size.map(|size| (NotificationFilter { reader, unread_only }, size)))
}

/// The notifications that a request marks, in one order whatever order they came in.
pub(crate) fn marked(request: &MarkReadRequest) -> Result<Marked> {
    let asked = &request.notification_ids;
    let mut violations = Violations::new();
    violations.check(
        (1..=MOST_MARKED).contains(&asked.len()),
        "notification_ids",
        "must be 1 to 1,000",
    );
    let ids = asked
        .iter()
        .enumerate()
        .map(|(index, id)| ids::required::<NotificationId>(&format!("notification_ids[{index}]"), id, &mut violations));
    let ids: Option<Vec<NotificationId>> = ids.collect::<Vec<_>>().into_iter().collect();
    let mut ids = violations.finish(ids)?;
    ids.sort_unstable();
    ids.dedup();
    Ok(Marked(ids))
}

/// A notification's message.
pub(crate) fn message((notification, read): (Notification, bool)) -> WireNotification {
    WireNotification {
        id: notification.id.to_string(),
        kind: WireNotificationKind::from(notification.kind).into(),
        title: notification.title.into(),
        resource: Some(Resource {
            r#type: notification.resource_type,
            id: notification.resource_id,
        }),
        design_id: notification.design_id.map(|id| id.to_string()).unwrap_or_default(),
        occurred_at: Some(timestamp(notification.occurred_at)),
        read,
    }
}

impl From<NotificationKind> for WireNotificationKind {
    fn from(kind: NotificationKind) -> Self {
        match kind {
            NotificationKind::DriftDetected => WireNotificationKind::DriftDetected,
            NotificationKind::ExecutionFailed => WireNotificationKind::ExecutionFailed,
            NotificationKind::ExecutionOutcomeUnknown => WireNotificationKind::ExecutionOutcomeUnknown,
        }
    }
}
