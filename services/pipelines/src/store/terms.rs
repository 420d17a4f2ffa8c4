//! For how long a stage is a runner's, and how long after that another may have it.

use diesel::{dsl::sql, expression::SqlLiteral, sql_types::Timestamptz};
use kit::config::Env;

use crate::model::attempt::{LEASE, MARGIN};

/// The shortest margin: a runner needs 14 s to end what it does. Tests have no such patience.
const LEAST_MARGIN: i64 = if cfg!(debug_assertions) { 1 } else { 15 };

/// For how long leases are given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How many seconds a lease is its runner's at a time.
    pub(crate) lease: i64,
    /// How many seconds after its end it is taken away.
    pub(crate) margin: i64,
}

impl Terms {
    /// As the environment says; `None` when a problem was noted.
    pub(crate) fn read(env: &mut Env) -> Option<Terms> {
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let lease = env.number("BOARD3_LEASE_SECONDS", seconds(LEASE), 1..=600);
        let margin = env.number("BOARD3_LEASE_MARGIN_SECONDS", seconds(MARGIN), LEAST_MARGIN..=600);
        Some(Terms {
            lease: lease?,
            margin: margin?,
        })
    }

    /// When a lease of now ends, by the database's clock.
    pub(super) fn expiry(self) -> SqlLiteral<Timestamptz> {
        from_now(self.lease)
    }

    /// When it is taken away.
    pub(super) fn fence(self) -> SqlLiteral<Timestamptz> {
        from_now(self.lease + self.margin)
    }
}

fn from_now(seconds: i64) -> SqlLiteral<Timestamptz> {
    sql(&format!("clock_timestamp() + interval '{seconds} seconds'"))
}
