//! Times as PostgreSQL keeps them: whole microseconds, so that what is answered is what is stored.

use kit::{Error, Result};
use time::OffsetDateTime;

/// This moment.
pub(crate) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.nanosecond() / 1_000 * 1_000)
        .expect("fewer nanoseconds are a time too")
}

/// A time as the cursors of pages tell it: microseconds since 1970.
pub(crate) fn microseconds(time: OffsetDateTime) -> i64 {
    // Within i64 for all times that PostgreSQL has.
    (time.unix_timestamp_nanos() / 1_000) as i64
}

/// The time of a cursor.
pub(crate) fn from_microseconds(microseconds: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1_000).map_err(Error::internal)
}
