//! Locks: who may write a state, as Terraform describes itself and as we know it.

use diesel::prelude::{Queryable, Selectable};
use kit::{Error, Reason};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use serde::Serialize;

use super::{Caller, ExecutionId, LockEnding, PastLockId, PrincipalId, PrincipalKind, StateId, state::StateName};
use crate::schema::state_locks;

/// Terraform's id of a lock: 1 to 128 characters, a UUID as a rule.
#[derive(Clone, Debug, PartialEq, Eq, diesel_derive_newtype::DieselNewType)]
pub struct LockId(String);

impl LockId {
    /// What it must be.
    pub const RULE: &'static str = "must have 1 to 128 characters, none of them a control character";

    /// The id, if it is one.
    pub fn parse(text: &str) -> Option<LockId> {
        let sound = (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        sound.then(|| LockId(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A lock to take. Its texts are as long as their columns are wide, at most.
#[derive(Clone, Debug)]
pub struct NewLock {
    /// Its id.
    pub id: LockId,
    /// What it is taken for, for example `OperationTypeApply`.
    pub operation: String,
    /// `user@host`, as the holder says itself.
    pub who: String,
    /// More about it.
    pub info: String,
    /// The holder's Terraform.
    pub terraform_version: String,
    /// Why nobody else may write; empty where it is no maintenance lock.
    pub maintenance_reason: String,
}

/// A lock that is held.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = state_locks)]
pub struct Lock {
    /// Its id.
    #[diesel(column_name = lock_id)]
    pub id: LockId,
    /// What it was taken for.
    pub operation: String,
    /// `user@host`, as the holder says itself.
    pub who: String,
    /// More about it.
    pub info: String,
    /// The holder's Terraform.
    pub terraform_version: String,
    /// What kind of caller holds it.
    pub holder_kind: PrincipalKind,
    /// The caller that holds it.
    pub holder_id: PrincipalId,
    /// When it was taken.
    pub created_at: OffsetDateTime,
    /// When the holder was last heard of.
    pub last_seen_at: OffsetDateTime,
    /// Why nobody else may write; empty where it is no maintenance lock.
    pub maintenance_reason: String,
    /// The execution that a job's lock belongs to.
    pub execution_id: Option<ExecutionId>,
}

/// The operation of a maintenance lock that its taker says nothing of.
pub const MAINTENANCE: &str = "maintenance";

/// How the job stands that holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No job's lock.
    NoJob,
    /// Nobody says.
    Unknown,
    /// Its lease is renewed.
    Live,
    /// Its lease was not renewed in time.
    Expiring,
    /// The job has ended.
    Orphaned,
}

/// A lock that is held, and of what.
#[derive(Clone, Debug)]
pub struct Held {
    /// The state.
    pub state: StateId,
    /// Its name.
    pub name: StateName,
    /// The lock.
    pub lock: Lock,
    /// How the job stands that holds it.
    pub standing: Standing,
}

/// Which locks are asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LockFilter {
    /// Only those whose holder was last heard of before; in microseconds since 1970.
    pub silent_since: Option<i64>,
    /// Only maintenance locks.
    pub maintenance_only: bool,
    /// Only that of the state with this name: all that a job sees.
    pub only: Option<String>,
}

/// A lock that is over.
#[derive(Clone, Debug, Queryable)]
pub struct PastLock {
    /// Its id here.
    pub id: PastLockId,
    /// The state.
    pub state_id: StateId,
    /// As it was held.
    pub lock: Lock,
    /// How it ended.
    pub ending: LockEnding,
    /// What kind of caller ended it.
    pub ended_by_kind: Option<PrincipalKind>,
    /// The caller that ended it; nobody where the service did.
    pub ended_by_id: Option<PrincipalId>,
    /// Why it was taken away.
    pub ended_reason: String,
    /// When.
    pub ended_at: OffsetDateTime,
}

impl Lock {
    /// Who holds it.
    pub fn holder(&self) -> Caller {
        Caller {
            kind: self.holder_kind,
            id: self.holder_id,
        }
    }

    /// Whether it is this lock of this caller: its id is shown to everyone who is refused, so that alone proves nothing.
    pub fn is_held(&self, id: &LockId, caller: Caller) -> bool {
        self.id == *id && self.holder() == caller
    }

    /// Whether a job holds it, and which.
    pub fn is_of_job(&self, job: PrincipalId) -> bool {
        self.holder_kind == PrincipalKind::Job && self.holder_id == job
    }

    /// Whether it keeps everybody away until a person ends it.
    pub fn is_maintenance(&self) -> bool {
        !self.maintenance_reason.is_empty()
    }

    /// Whether its operation writes a state from elsewhere, whatever the serial.
    pub fn pushes(&self) -> bool {
        matches!(self.operation.as_str(), "state-push" | "migration destination state")
    }

    /// As Terraform's LockInfo, which it shows to whoever is refused. Without an ID or a time it would stop waiting.
    pub fn info_json(&self) -> String {
        let created = self.created_at.format(&Rfc3339);
        json!({
            "ID": self.id.as_str(),
            "Operation": self.operation,
            "Info": if self.is_maintenance() { &self.maintenance_reason } else { &self.info },
            "Who": self.who,
            "Version": self.terraform_version,
            "Created": created.unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned()),
            "Path": "",
        })
        .to_string()
    }

    /// The refusal of everyone else.
    pub fn refusal(&self) -> Error {
        Error::new(
            Reason::StateLocked,
            format!("the state is locked ({})", self.id.as_str()),
        )
        .with("lock_id", self.id.as_str())
        .with("holder_kind", self.holder_kind.as_str())
        .with("holder_id", self.holder_id.to_string())
        .with(Self::TOLD, self.info_json())
    }

    /// The key under which a refusal holds the lock's LockInfo.
    pub const TOLD: &'static str = "lock_info";
}

/// The refusal of a lock id that is not the one that is held.
pub fn mismatch(message: &'static str) -> Error {
    Error::new(Reason::LockMismatch, message)
}
