//! Times as PostgreSQL keeps them: whole microseconds, so that what is answered is what is stored.

use time::OffsetDateTime;

/// This moment.
pub(crate) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.nanosecond() / 1_000 * 1_000)
        .expect("fewer nanoseconds are a time too")
}
