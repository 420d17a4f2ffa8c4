//! Locks, in messages and as Terraform's LockInfo.

use api::terraform_state::v1;
use kit::{Error, Result, Violations, ids};
use serde::Deserialize;

use super::timestamp;
use crate::model::{
    LockEnding, StateId, kept,
    lock::{Held, Lock, LockId, MAINTENANCE, NewLock, PastLock, Standing},
};

/// The most bytes of a LockInfo.
pub(crate) const MOST_INFO_BYTES: u64 = 64 << 10;

/// A lock to take of a state.
#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) id: StateId,
    pub(crate) lock: NewLock,
}

impl TryFrom<v1::LockStateRequest> for Take {
    type Error = Error;

    fn try_from(request: v1::LockStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        let Some(lock) = request.lock else {
            violations.add("lock", "is required");
            return violations.finish(None);
        };
        let lock_id = lock_id("lock.id", &lock.id, &mut violations);
        violations.length("lock.operation", &lock.operation, 0, 128);
        violations.length("lock.who", &lock.who, 0, 256);
        violations.length("lock.info", &lock.info, 0, 1024);
        violations.length("lock.terraform_version", &lock.terraform_version, 0, 64);
        violations.length("maintenance_reason", &request.maintenance_reason, 0, 1000);
        let mut operation = lock.operation;
        if operation.is_empty() && !request.maintenance_reason.is_empty() {
            operation.push_str(MAINTENANCE);
        }
        let (id, lock_id) = violations.finish(id.zip(lock_id))?;
        Ok(Take {
            id,
            lock: NewLock {
                id: lock_id,
                operation,
                who: lock.who,
                info: lock.info,
                terraform_version: lock.terraform_version,
                maintenance_reason: request.maintenance_reason,
            },
        })
    }
}

/// A lock to give back.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) id: StateId,
    pub(crate) lock: LockId,
}

impl TryFrom<v1::UnlockStateRequest> for Release {
    type Error = Error;

    fn try_from(request: v1::UnlockStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        let lock = lock_id("lock_id", &request.lock_id, &mut violations);
        let (id, lock) = violations.finish(id.zip(lock))?;
        Ok(Release { id, lock })
    }
}

/// A lock to take away.
#[derive(Debug)]
pub(crate) struct TakeAway {
    pub(crate) id: StateId,
    pub(crate) lock: LockId,
    pub(crate) reason: String,
}

impl TryFrom<v1::ForceUnlockStateRequest> for TakeAway {
    type Error = Error;

    fn try_from(request: v1::ForceUnlockStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        let lock = lock_id("lock_id", &request.lock_id, &mut violations);
        violations.length("reason", &request.reason, 1, 1000);
        let (id, lock) = violations.finish(id.zip(lock))?;
        Ok(TakeAway {
            id,
            lock,
            reason: request.reason,
        })
    }
}

/// Reads a lock's id that must be given.
fn lock_id(field: &str, text: &str, violations: &mut Violations) -> Option<LockId> {
    let id = LockId::parse(text);
    let rule = if text.is_empty() { "is required" } else { LockId::RULE };
    violations.check(id.is_some(), field, rule);
    id
}

/// Reads a lock's id that may be left empty.
pub(crate) fn optional_lock_id(field: &str, text: &str, violations: &mut Violations) -> Option<LockId> {
    if text.is_empty() {
        None
    } else {
        lock_id(field, text, violations)
    }
}

impl From<Lock> for v1::Lock {
    fn from(lock: Lock) -> Self {
        v1::Lock {
            id: lock.id.as_str().to_owned(),
            operation: lock.operation,
            who: lock.who,
            info: lock.info,
            terraform_version: lock.terraform_version,
            created_at: Some(timestamp(lock.created_at)),
            holder_id: lock.holder_id.to_string(),
            holder_kind: lock.holder_kind.as_str().to_owned(),
            last_seen_at: Some(timestamp(lock.last_seen_at)),
            maintenance_reason: lock.maintenance_reason,
            execution_id: lock.execution_id.map(|id| id.to_string()).unwrap_or_default(),
            standing: v1::LockStanding::Unspecified.into(),
        }
    }
}

impl From<Held> for v1::HeldLock {
    fn from(held: Held) -> Self {
        let standing = match held.standing {
            Standing::NoJob => v1::LockStanding::Unspecified,
            Standing::Unknown => v1::LockStanding::Unknown,
            Standing::Live => v1::LockStanding::Live,
            Standing::Expiring => v1::LockStanding::Expiring,
            Standing::Orphaned => v1::LockStanding::Orphaned,
        };
        v1::HeldLock {
            state_id: held.state.to_string(),
            state_name: held.name.into(),
            lock: Some(v1::Lock {
                standing: standing.into(),
                ..held.lock.into()
            }),
        }
    }
}

impl From<PastLock> for v1::PastLock {
    fn from(past: PastLock) -> Self {
        let ending = match past.ending {
            LockEnding::Released => v1::LockEnding::Released,
            LockEnding::Forced => v1::LockEnding::Forced,
            LockEnding::Orphaned => v1::LockEnding::Orphaned,
        };
        v1::PastLock {
            id: past.id.to_string(),
            state_id: past.state_id.to_string(),
            lock: Some(past.lock.into()),
            ending: ending.into(),
            ended_by_id: past.ended_by_id.map(|id| id.to_string()).unwrap_or_default(),
            ended_by_kind: past
                .ended_by_kind
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            ended_reason: past.ended_reason,
            ended_at: Some(timestamp(past.ended_at)),
        }
    }
}

/// The state whose lock is asked for.
pub(crate) fn asked(request: &v1::GetLockRequest) -> Result<StateId> {
    let mut violations = Violations::new();
    let id = ids::required("state_id", &request.state_id, &mut violations);
    violations.finish(id)
}

/// What Terraform says of a lock; nothing of it but the id must be there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LockInfo {
    #[serde(rename = "ID")]
    id: Option<String>,
    operation: Option<String>,
    info: Option<String>,
    who: Option<String>,
    version: Option<String>,
}

/// A lock as Terraform names it when it takes it or gives it back.
pub(crate) struct Told {
    pub(crate) lock: NewLock,
    /// Whether nothing but the id is told: that is how OpenTofu takes a lock away.
    pub(crate) bare: bool,
}

/// Reads a LockInfo. What is too long is cut: whoever sees a refusal cannot make it shorter.
///
/// # Errors
/// INVALID_REQUEST without an id.
pub(crate) fn lock_info(json: &[u8]) -> Result<Told> {
    let info: LockInfo = serde_json::from_slice(json)
        .map_err(|_| Error::violation("lock_info", "must be Terraform's LockInfo as JSON"))?;
    let mut violations = Violations::new();
    let id = lock_id("lock_info.ID", &info.id.unwrap_or_default(), &mut violations);
    let id = violations.finish(id)?;
    let text = |text: Option<String>, most| kept(&text.unwrap_or_default(), most);
    let lock = NewLock {
        id,
        operation: text(info.operation, 128),
        who: text(info.who, 256),
        info: text(info.info, 1024),
        terraform_version: text(info.version, 64),
        maintenance_reason: String::new(),
    };
    let bare = lock.operation.is_empty() && lock.who.is_empty() && lock.terraform_version.is_empty();
    Ok(Told { lock, bare })
}
