//! Messages and Terraform's JSON, to and from the model; whatever is wrong with one is reported at once.

pub(crate) mod cursor;
pub(crate) mod difference;
pub(crate) mod drift;
pub(crate) mod heading;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod schedule;
pub(crate) mod state;
pub(crate) mod top;
mod value;

use kit::Violations;
use time::OffsetDateTime;

pub(crate) fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).expect("less than a second"),
    }
}

/// Reads a time that is given, in microseconds since 1970.
pub(crate) fn micros(field: &str, time: &prost_types::Timestamp, violations: &mut Violations) -> Option<i64> {
    let time = OffsetDateTime::from_unix_timestamp(time.seconds)
        .ok()
        .filter(|_| (0..1_000_000_000).contains(&time.nanos))
        .map(|whole| whole + std::time::Duration::from_nanos(time.nanos.unsigned_abs().into()));
    violations.check(time.is_some(), field, "must be a time from the years 1 to 9999");
    time.map(crate::model::micros)
}
