//! Messages and Terraform's JSON, to and from the model; whatever is wrong with one is reported at once.

pub(crate) mod drift;
pub(crate) mod heading;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod state;

use time::OffsetDateTime;

pub(crate) fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).expect("less than a second"),
    }
}
