//! What the service speaks of: ids, validated values, rows, and how they may change.
//!
//! A value that exists is valid; `wire` is where values come from. Whatever is done to an execution, a stage or an
//! attempt goes through the pure functions here, and what has come to an end stays as it is.

pub mod attempt;
pub mod design;
pub mod execution;
pub mod log;
pub mod pipeline;
pub mod runner;
pub mod stage;

use diesel::{
    deserialize::{self, FromSql},
    pg::{Pg, PgValue},
    serialize::{self, IsNull, Output, ToSql},
};
use kit::{
    Error, Reason, Result, Violations,
    ids::{Principal, UserId},
};
use std::{fmt, io::Write};

use crate::schema::sql_types::{
    AttemptEnum, ExecutionEnum, FailureEnum, KindEnum, PrincipalEnum, StageEnum, TriggerEnum,
};

kit::id! {
    /// A pipeline.
    PipelineId
}
kit::id! {
    /// A design, of the designs service.
    DesignId
}
kit::id! {
    /// An execution of a pipeline.
    ExecutionId
}
kit::id! {
    /// A stage of an execution.
    StageId
}
kit::id! {
    /// An attempt at a stage; also the lease's and the job's id.
    AttemptId
}
kit::id! {
    /// A runner.
    RunnerId
}
kit::id! {
    /// A user or an API key; its [`PrincipalKind`] says which.
    PrincipalId
}
kit::id! {
    /// An event of another service.
    EventId
}

/// Declares a text newtype with the least and most characters it has.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $least:literal, $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, diesel_derive_newtype::DieselNewType)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks the text as the value of `field`. What breaks a rule leaves a violation, and must not be used.
            pub fn parse(field: &str, text: String, violations: &mut Violations) -> Self {
                violations.length(field, &text, $least, $most);
                Self(text)
            }
        }

        crate::model::reads_as_text!($name);
    };
}

/// Declares a text newtype whose shape a function checks.
macro_rules! shaped {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $holds:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, diesel_derive_newtype::DieselNewType)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What it must be.
            pub const RULE: &'static str = $rule;

            /// Reads the text as the value of `field`; another shape leaves a violation.
            pub fn parse(field: &str, text: String, violations: &mut Violations) -> Option<Self> {
                let holds: fn(&str) -> bool = $holds;
                let shaped = holds(&text);
                violations.check(shaped, field, Self::RULE);
                shaped.then_some(Self(text))
            }
        }

        crate::model::reads_as_text!($name);
    };
}

/// What every text newtype has.
macro_rules! reads_as_text {
    ($name:ident) => {
        impl $name {
            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) use reads_as_text;

text! {
    /// A pipeline's name: 1 to 200 characters.
    PipelineName, 1, 200
}
text! {
    /// A Terraform's version as it says itself: at most 64 characters; empty where there is none.
    TerraformVersion, 0, 64
}
text! {
    /// A failure in words: at most 1,000 characters.
    FailureDetail, 0, 1_000
}

impl FailureDetail {
    /// Our own words, cut at the most that there may be.
    pub fn of(words: impl fmt::Display) -> Self {
        Self(words.to_string().chars().take(1_000).collect())
    }
}

shaped! {
    /// A stage's name.
    StageName, "must be 1 to 64 of a-z, 0-9, _ and -, starting with a letter",
    |text| text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}
shaped! {
    /// A runner's name.
    RunnerName, "must be 1 to 100 of A-Z, a-z, 0-9, _, . and -",
    |text| matches!(text.len(), 1..=100)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}
shaped! {
    /// The name of a state of the terraform-state service.
    StateName, "must be 1 to 200 of A-Z, a-z, 0-9, _, ., - and /, starting and ending with a letter or digit, without an empty segment, . or ..",
    |text| text.len() <= 200
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

/// Declares an enum that is a type of PostgreSQL too.
macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident as $sql:ident { $($(#[$of:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow)]
        #[serde(rename_all = "snake_case")]
        #[diesel(sql_type = $sql)]
        pub enum $name {
            $($(#[$of])* $variant),+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

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

stored_enum! {
    /// What a stage does.
    StageKind as KindEnum {
        /// `terraform validate`.
        Validate = "validate",
        /// `terraform plan`.
        Plan = "plan",
        /// `terraform apply` of the plan that it needs.
        Apply = "apply",
        /// `terraform plan -refresh-only`, for DetectDrift.
        Drift = "drift",
    }
}

stored_enum! {
    /// What started an execution.
    Trigger as TriggerEnum {
        /// A caller.
        Manual = "manual",
        /// Drift that was found.
        Drift = "drift",
        /// A schedule of checks for drift.
        Schedule = "schedule",
    }
}

stored_enum! {
    /// Where an execution stands.
    ExecutionStatus as ExecutionEnum {
        /// No stage has been handed out yet.
        Queued = "queued",
        /// Some stage has been.
        Running = "running",
        /// Cancelled by a person; a runner has not reported yet.
        Cancelling = "cancelling",
        /// Every stage succeeded.
        Succeeded = "succeeded",
        /// A stage failed.
        Failed = "failed",
        /// Cancelled before it could finish.
        Cancelled = "cancelled",
        /// Nobody knows whether it succeeded.
        OutcomeUnknown = "outcome_unknown",
    }
}

stored_enum! {
    /// Where a stage stands.
    StageStatus as StageEnum {
        /// A stage that it needs has not succeeded yet.
        Blocked = "blocked",
        /// A runner may take it.
        Ready = "ready",
        /// A runner has taken it and not yet begun.
        Leased = "leased",
        /// A runner works on it.
        Running = "running",
        /// Done.
        Succeeded = "succeeded",
        /// Not done.
        Failed = "failed",
        /// Not tried, since one that it needs was not done.
        Skipped = "skipped",
        /// Cancelled by a person.
        Cancelled = "cancelled",
        /// Nobody knows whether it was done.
        OutcomeUnknown = "outcome_unknown",
    }
}

stored_enum! {
    /// Where an attempt stands.
    AttemptStatus as AttemptEnum {
        /// A runner has the stage and has not yet begun.
        Leased = "leased",
        /// It works on it.
        Running = "running",
        /// Done.
        Succeeded = "succeeded",
        /// Not done.
        Failed = "failed",
        /// Interrupted as asked.
        Cancelled = "cancelled",
        /// The lease ran out while something could be changed.
        OutcomeUnknown = "outcome_unknown",
        /// The lease ran out where nothing could be changed.
        Lost = "lost",
    }
}

stored_enum! {
    /// Why a stage was not done.
    FailureReason as FailureEnum {
        /// The runner has no Terraform.
        ToolMissing = "tool_missing",
        /// Terraform said no.
        TerraformFailed = "terraform_failed",
        /// The design could not be exported.
        ExportFailed = "export_failed",
        /// Contact with its runners was lost.
        LeaseExpired = "lease_expired",
        /// Cancelled by a person.
        Cancelled = "cancelled",
        /// The plan file is larger than what is kept.
        ArtifactTooLarge = "artifact_too_large",
        /// The runner itself failed.
        RunnerFailed = "runner_failed",
    }
}

impl FailureReason {
    /// Its name in messages: upper-case letters and underscores.
    pub fn wire(self) -> String {
        self.as_str().to_uppercase()
    }

    /// The reason of this name in messages.
    pub fn from_wire(name: &str) -> Option<Self> {
        FailureReason::ALL.iter().copied().find(|reason| reason.wire() == name)
    }

    /// Whether a runner gives it; the others are this service's own findings.
    pub const fn is_a_runners(self) -> bool {
        match self {
            FailureReason::LeaseExpired | FailureReason::Cancelled => false,
            FailureReason::ToolMissing
            | FailureReason::TerraformFailed
            | FailureReason::ExportFailed
            | FailureReason::ArtifactTooLarge
            | FailureReason::RunnerFailed => true,
        }
    }
}

stored_enum! {
    /// Who can make pipelines and start executions.
    PrincipalKind as PrincipalEnum {
        /// A signed-in user.
        User = "user",
        /// An API key.
        ApiKey = "api_key",
    }
}

/// Who made or started something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// User or API key.
    pub kind: PrincipalKind,
    /// Its id.
    pub id: PrincipalId,
}

impl Author {
    /// The caller as an author.
    ///
    /// # Errors
    /// CALLER_NOT_ALLOWED for jobs, services and nobody: what runs in a pipeline starts no pipelines.
    pub fn of(principal: Principal) -> Result<Author> {
        match principal {
            Principal::User(UserId(id)) => Ok(Author {
                kind: PrincipalKind::User,
                id: PrincipalId(id),
            }),
            Principal::ApiKey(id) => Ok(Author {
                kind: PrincipalKind::ApiKey,
                id: PrincipalId(id),
            }),
            Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => Err(Error::new(
                Reason::CallerNotAllowed,
                "only users and API keys make and run pipelines",
            )),
        }
    }
}

/// Times in page tokens: microseconds since 1970, which is what PostgreSQL keeps.
pub(crate) mod micros {
    use time::{Duration, OffsetDateTime};

    /// Microseconds since 1970.
    pub(crate) fn of(time: OffsetDateTime) -> i64 {
        i64::try_from((time - OffsetDateTime::UNIX_EPOCH).whole_microseconds()).unwrap_or(i64::MAX)
    }

    /// The time so many microseconds after 1970.
    pub(crate) fn time(micros: i64) -> Option<OffsetDateTime> {
        OffsetDateTime::UNIX_EPOCH.checked_add(Duration::microseconds(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> bool {
        StateName::parse("state_name", text.to_owned(), &mut Violations::new()).is_some()
    }

    #[test]
    fn a_state_name_has_the_shape_that_the_proto_gives() {
        for good in ["a", "prod", "team-a/network.eu_1", "0/1/2", &"a".repeat(200)] {
            assert!(state(good), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "a/./b",
            "a/../b",
            ".a",
            "a.",
            "-a",
            "a b",
            "ä",
            "a\n",
            &"a".repeat(201),
        ] {
            assert!(!state(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_failure_reason_has_one_name_in_messages() {
        for &reason in FailureReason::ALL {
            assert_eq!(FailureReason::from_wire(&reason.wire()), Some(reason));
        }
        assert_eq!(FailureReason::from_wire("tool_missing"), None);
    }

    #[test]
    fn what_runs_in_a_pipeline_starts_none() {
        assert!(Author::of(Principal::Job(uuid::Uuid::now_v7())).is_err());
        assert!(Author::of(Principal::Service("designs")).is_err());
        assert!(Author::of(Principal::User(UserId::new())).is_ok());
    }
}
