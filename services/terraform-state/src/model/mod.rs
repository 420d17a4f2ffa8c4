//! What the service speaks of: ids, validated values and rows.
//!
//! A value that exists is valid; `wire` is where values come from, and it reports everything that is wrong at once.

pub mod compaction;
pub(crate) mod difference;
pub mod drift;
pub mod key;
pub mod lock;
pub(crate) mod masking;
pub mod resource;
pub mod retention;
pub mod schedule;
pub mod state;
pub mod version;

use std::io::Write;

use diesel::{
    deserialize::{self, FromSql},
    pg::{Pg, PgValue},
    serialize::{self, IsNull, Output, ToSql},
};
use kit::{
    Error, Result,
    ids::{Principal, UserId},
};
use time::OffsetDateTime;

use crate::schema::sql_types::{LockEndingEnum, PrincipalEnum, VersionKindEnum};

kit::id! {
    /// A state.
    StateId
}
kit::id! {
    /// A design.
    DesignId
}
kit::id! {
    /// A pipeline's execution, which jobs belong to.
    ExecutionId
}
kit::id! {
    /// A lock that is over.
    PastLockId
}
kit::id! {
    /// A user, an API key or a job; its [`PrincipalKind`] says which.
    PrincipalId
}

/// Declares an enum that is a type of PostgreSQL too.
macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident as $sql:ident { $($(#[$of:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow)]
        $(#[$doc])*
        #[diesel(sql_type = $sql)]
        pub enum $name {
            $($(#[$of])* $variant),+
        }

        impl $name {
            /// Its name in PostgreSQL: lower-case letters and underscores.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text),+
                }
            }
        }

        impl ToSql<$sql, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(self.as_str().as_bytes())?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<$sql, Pg> for $name {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                match value.as_bytes() {
                    $(bytes if bytes == $text.as_bytes() => Ok($name::$variant),)+
                    other => Err(format!("{} is no {}", String::from_utf8_lossy(other), stringify!($name)).into()),
                }
            }
        }
    };
}
pub(crate) use stored_enum;

stored_enum! {
    /// Who can do things to states.
    PrincipalKind as PrincipalEnum {
        /// A signed-in user.
        User = "user",
        /// An API key.
        ApiKey = "key",
        /// A runner's job.
        Job = "job",
    }
}

stored_enum! {
    /// Why a version was written.
    VersionKind as VersionKindEnum {
        /// The serial grew within its lineage, or there was nothing before.
        Normal = "normal",
        /// A push that went over the rules of serial and lineage.
        Forced = "forced",
        /// Written under a lock that has written again since.
        Intermediate = "intermediate",
        /// An older version, brought back.
        Rollback = "rollback",
        /// Brought in from elsewhere.
        Import = "import",
    }
}

stored_enum! {
    /// How a lock ended.
    LockEnding as LockEndingEnum {
        /// Its holder gave it back.
        Released = "released",
        /// Somebody took it away.
        Forced = "forced",
        /// The service took it away when the job that held it had ended.
        Orphaned = "orphaned",
    }
}

/// Who holds a lock, or wrote a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User, API key or job.
    pub kind: PrincipalKind,
    /// Its id.
    pub id: PrincipalId,
}

impl Caller {
    /// The principal of a call.
    ///
    /// # Errors
    /// INTERNAL for services and nobody: no policy of this service admits either.
    pub fn of(principal: Principal) -> Result<Caller> {
        let (kind, id) = match principal {
            Principal::User(UserId(id)) => (PrincipalKind::User, id),
            Principal::ApiKey(id) => (PrincipalKind::ApiKey, id),
            Principal::Job(id) => (PrincipalKind::Job, id),
            Principal::Service(_) | Principal::Anonymous => {
                return Err(Error::internal(format!("{principal} does nothing to states")));
            }
        };
        Ok(Caller {
            kind,
            id: PrincipalId(id),
        })
    }
}

/// A time in microseconds since 1970, which is as exactly as PostgreSQL keeps it.
pub(crate) fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or(i64::MAX)
}

/// The time so many microseconds after 1970.
pub(crate) fn at_micros(micros: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).map_err(Error::internal)
}

/// At most `most` characters of a text that Terraform sent, without control characters: what can be kept of it.
/// There is nobody on the other side who could shorten it.
pub(crate) fn kept(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}
