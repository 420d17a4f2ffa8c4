//! What a caller asks for; every violation is told at once.

use api::audit::v1::{GetAuditLogRequest, ListAuditLogsRequest};
use kit::{Result, Violations, ids, page::PageSize};
use prost_types::Timestamp;
use uuid::Uuid;

use super::{IDENTIFIER, TYPE, filled, floor, valid};
use crate::model::{Filter, LogId, time_of};

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
        // Rows have whole microseconds: what a range holds is rounded down, so are its ends. Nothing is later
        // than the last time there is.
        since: since.map(|nanos| floor(nanos, 1_000)),
        until: until
            .map(|nanos| floor(nanos + 999, 1_000))
            .filter(|micros| time_of(*micros).is_some()),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

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

    #[test]
    fn the_last_time_there_is_bounds_nothing() {
        let last = Timestamp {
            seconds: 253_402_300_799,
            nanos: 999_999_999,
        };
        let (filter, _) = listing(&ListAuditLogsRequest {
            until: Some(last),
            ..Default::default()
        })
        .unwrap();
        assert_eq!(filter.until, None);
        let (filter, _) = listing(&ListAuditLogsRequest {
            since: Some(last),
            ..Default::default()
        })
        .unwrap();
        assert!(time_of(filter.since.unwrap()).is_some());
    }
}
