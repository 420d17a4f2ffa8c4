//! A row of the trail, and what a page of rows is asked by; [`notification`] has what people should hear of.

use std::io::Write;

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    prelude::{Insertable, Queryable, Selectable},
    serialize::{self, IsNull, Output, ToSql},
};
use kit::ids::OrgId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::schema::{audit_logs, types};

kit::id! {
    /// An audit log; the id of the event that told of it.
    LogId
}

/// An enum that PostgreSQL knows by these labels, and leaf inputs, where it is in them, by these bytes.
macro_rules! labelled {
    (@bytes $name:ident $($variant:ident,)+) => {};
    (@bytes $name:ident $($variant:ident $byte:literal,)+) => {
        impl $name {
            /// Its byte in a leaf input; never given to another.
            pub fn byte(self) -> u8 {
                match self { $($name::$variant => $byte,)+ }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal $(, $byte:literal)?;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
        #[diesel(sql_type = types::$name)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// Its label in PostgreSQL.
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }

        labelled! { @bytes $name $($variant $($byte)?,)+ }

        impl ToSql<types::$name, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(self.label().as_bytes())?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<types::$name, Pg> for $name {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                let known = Self::ALL.iter().find(|one| one.label().as_bytes() == value.as_bytes());
                known.copied().ok_or_else(|| concat!(stringify!($name), " has a label that this program does not know").into())
            }
        }
    };
}

// Below the macro, which it uses.
pub mod notification;

labelled! {
    /// Whether the event of a row was understood.
    AuditLogKind {
        /// It was: an audited call.
        Call = "call", 1;
        /// It was not, and is kept as it came.
        Unparsed = "unparsed", 2;
    }
}

labelled! {
    /// The kinds of caller.
    ActorKind {
        /// A signed-in user.
        User = "user", 1;
        /// An API key of an organization.
        ApiKey = "api_key", 2;
        /// A service of the suite.
        Service = "service", 3;
        /// Nobody known.
        Anonymous = "anonymous", 4;
        /// A runner's job.
        Job = "job", 5;
    }
}

labelled! {
    /// How a call ended.
    Outcome {
        /// It was done.
        Success = "success", 1;
        /// It failed.
        Failure = "failure", 2;
        /// The gate refused it.
        Denied = "denied", 3;
    }
}

/// One row without its raw parts. Times are whole microseconds, as PostgreSQL keeps them; no text is empty.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = audit_logs, check_for_backend(Pg))]
pub struct AuditLog {
    /// Whose trail it is in.
    pub org_id: OrgId,
    /// The event's id.
    pub id: LogId,
    /// Whether the event was understood.
    pub kind: AuditLogKind,
    /// When it was recorded, by this service's clock.
    pub recorded_at: OffsetDateTime,
    /// When it happened, by the producer's clock; of an unparsed event, when it was recorded.
    pub occurred_at: OffsetDateTime,
    /// The slice that wrote the event.
    pub source: String,
    /// The epoch of that slice's log.
    pub epoch: Uuid,
    /// The event's position in that epoch.
    pub position: i64,
    /// What kind of caller it was.
    pub actor_kind: Option<ActorKind>,
    /// User id, API key id, job id or slice name.
    pub actor_id: Option<String>,
    /// What was called, `<slice>.<Method>`.
    pub action: Option<String>,
    /// The type of what it was done to.
    pub resource_type: Option<String>,
    /// The id of what it was done to.
    pub resource_id: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The reason of a failure or denial.
    pub reason: Option<String>,
    /// The call's `x-request-id`.
    pub request_id: Option<String>,
    /// The message's `request_id`.
    pub idempotency_key: Option<String>,
    /// W3C trace id.
    pub trace_id: Option<String>,
    /// Where the call came from.
    pub caller_address: Option<String>,
    /// The event that caused this one, as its producer names it.
    pub cause_event_id: Option<String>,
    /// How many events stand between this one and a caller.
    pub chain_depth: i32,
    /// SHA-256 of an unparsed event's bytes.
    pub envelope_hash: Option<Vec<u8>>,
}

impl AuditLog {
    /// Whether both rows came of one event, however often and wherever in a log it was delivered.
    pub fn same_event(&self, other: &AuditLog) -> bool {
        let delivered = AuditLog {
            recorded_at: other.recorded_at,
            epoch: other.epoch,
            position: other.position,
            ..self.clone()
        };
        match self.kind {
            AuditLogKind::Call => delivered == *other,
            AuditLogKind::Unparsed => {
                AuditLog {
                    occurred_at: other.occurred_at,
                    ..delivered
                } == *other
            }
        }
    }
}

/// A row to add, with the bytes of an event that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLog {
    /// The row.
    pub log: AuditLog,
    /// The event as it came; of unparsed events only.
    pub envelope: Option<Vec<u8>>,
}

/// What the rows of a list have in common: all given conditions hold. Part of the list's page tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// Happened at or after, in microseconds since 1970.
    pub since: Option<i64>,
    /// Happened before, in microseconds since 1970.
    pub until: Option<i64>,
    /// By this user or API key.
    pub actor_id: Option<Uuid>,
    /// This action.
    pub action: Option<String>,
    /// On this type of resource.
    pub resource_type: Option<String>,
    /// On this resource.
    pub resource_id: Option<String>,
    /// With this `x-request-id` or this `request_id`.
    pub request_id: Option<String>,
}

/// Where a page ended: the keys of its last row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// `occurred_at`, in microseconds since 1970.
    pub occurred_at: i64,
    /// `id`.
    pub id: LogId,
}

/// Microseconds since 1970, rounded down.
pub fn micros(time: OffsetDateTime) -> i64 {
    let micros = time.unix_timestamp_nanos().div_euclid(1_000);
    i64::try_from(micros).expect("the years of OffsetDateTime fit into 64 bits of microseconds")
}

/// The time of this many microseconds since 1970; none outside of the years 1 to 9999.
pub fn time_of(micros: i64) -> Option<OffsetDateTime> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok()?;
    (1..=9999).contains(&time.year()).then_some(time)
}
