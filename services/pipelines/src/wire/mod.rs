//! Messages to values and back.
//!
//! Every request is read to its end: whoever breaks five rules hears of all five.

pub(crate) mod execution;
pub(crate) mod job;
pub(crate) mod lease;
pub(crate) mod list;
pub(crate) mod pipeline;

use time::OffsetDateTime;

/// What is wrong with an enum's number that the proto does not have.
const UNKNOWN_ENUM: &str = "must be a known value";

pub(crate) fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).expect("less than a second"),
    }
}
