//! Taking a lock, giving it back, taking it away, and what becomes of the lock of a job that has ended.

use std::time::Duration;

use kit::{Error, Reason, Result, auth::scope::OrgScope, db::Tx, failpoint, ids::Principal};

use super::Backend;
use crate::{
    model::{
        Caller, ExecutionId, PrincipalId,
        lock::{Lock, LockId, NewLock, mismatch},
        state::State,
    },
    store::{
        self,
        lock::{End, Ending},
    },
};

/// For how long after it took a lock away a call that names no lock is the repeat of the one that did.
const REPEATED_FOR: Duration = Duration::from_secs(30);

/// The execution that a job's locks belong to.
pub(crate) fn bound_execution(scope: &OrgScope) -> Result<Option<ExecutionId>> {
    let execution = scope.bound("execution").map(str::parse).transpose();
    execution.map_err(Error::internal)
}

/// Holds the caller's job, before the row of any state, until the transaction ends: a job that ends meanwhile finds the
/// lock that it takes.
///
/// # Errors
/// CREDENTIAL_INVALID for a job that has ended, though the gate may not have heard of it.
pub(crate) async fn hold_job(tx: &mut Tx) -> Result<()> {
    let Principal::Job(id) = tx.principal() else {
        return Ok(());
    };
    let ended = store::job::hold(tx, PrincipalId(id)).await?;
    if ended && !failpoint::without(&format!("terraform_state.ended_jobs/{id}")) {
        return Err(Error::new(Reason::CredentialInvalid, "the job has ended"));
    }
    Ok(())
}

/// Takes a state's lock. The holder's repeat is answered like the first call: its answer may have been lost.
///
/// # Errors
/// STATE_LOCKED with the holder, LOCK_MISMATCH for the lock that was given back or taken away last: a call that comes
/// after its own UNLOCK must not leave a lock that nobody knows of; CALLER_NOT_ALLOWED for a job's maintenance lock.
pub(crate) async fn take(tx: &mut Tx, state: &State, new: &NewLock, execution: Option<ExecutionId>) -> Result<Lock> {
    if !new.maintenance_reason.is_empty() {
        no_job(tx)?;
    }
    let ended = state.released_lock_id.as_deref() == Some(new.id.as_str());
    let taken = match ended {
        false => store::lock::insert(tx, state.id, new, execution).await?,
        true => None,
    };
    if let Some(taken) = taken {
        return Ok(taken);
    }
    let Some(held) = store::lock::find(tx, state.id).await? else {
        return Err(mismatch("the lock was given back or taken away before"));
    };
    let repeated = held.is_held(&new.id, Caller::of(tx.principal())?);
    if repeated && !failpoint::without(&format!("terraform_state.lock_repeat/{}", state.name.as_str())) {
        let seen = store::lock::update_seen(tx, state.id).await?;
        return Ok(seen.unwrap_or(held));
    }
    Err(held.refusal())
}

/// Gives the caller's lock back; a maintenance lock only where that may be. The repeat of the last release changes nothing.
///
/// # Errors
/// LOCK_MISMATCH, and no lock is released.
pub(crate) async fn release(tx: &mut Tx, state: &State, id: &LockId, maintenance: bool) -> Result<()> {
    let caller = Caller::of(tx.principal())?;
    let lock = Ending {
        id,
        holder: caller,
        maintenance,
    };
    if store::lock::delete(tx, state.id, lock, End::Released).await? {
        return Ok(());
    }
    match store::lock::find(tx, state.id).await? {
        Some(held) if held.id == *id && held.is_maintenance() && !maintenance => Err(no_maintenance()),
        Some(held) if held.id == *id => Err(mismatch("the lock is another caller's, who alone gives it back")),
        Some(_) | None if state.released_lock_id.as_deref() == Some(id.as_str()) => {
            if state.released_by_force {
                return Err(mismatch("the lock was taken away before"));
            }
            Ok(())
        }
        Some(_) => Err(mismatch("another lock is held")),
        None => Err(mismatch("the lock is not held")),
    }
}

/// Takes a lock from its holder, the one with this id or whichever it is, and says whether there was one to take. A
/// maintenance lock only where that may be.
///
/// # Errors
/// LOCK_MISMATCH; CALLER_NOT_ALLOWED for a job, of a maintenance lock.
pub(crate) async fn take_away(
    tx: &mut Tx,
    state: &State,
    id: Option<&LockId>,
    reason: &str,
    maintenance: bool,
) -> Result<bool> {
    match store::lock::find(tx, state.id).await? {
        Some(held) if held.is_maintenance() && !maintenance && id.is_none_or(|id| *id == held.id) => {
            Err(no_maintenance())
        }
        // Whose answer was lost asks again, and means the lock before this one.
        Some(held) if id.is_none() && took_away(tx, state, &held).await? => Ok(false),
        Some(held) if id.is_none_or(|id| *id == held.id) => {
            if held.is_maintenance() {
                no_job(tx)?;
            }
            store::lock::delete(tx, state.id, Ending::from(&held), End::Forced(reason)).await
        }
        Some(_) => Err(mismatch("another lock is held")),
        // A repeat of what was done before; Terraform names no lock at all.
        None if state.released_by_force
            && id.is_none_or(|id| state.released_lock_id.as_deref() == Some(id.as_str())) =>
        {
            Ok(false)
        }
        None => Err(mismatch("no lock is held")),
    }
}

/// The refusal to end a maintenance lock over HTTP: who calls so is shown a status alone, and not what is under maintenance.
fn no_maintenance() -> Error {
    mismatch("a maintenance lock is ended by LockService alone")
}

/// Takes the locks of a job away that has ended, in the worker's transaction.
pub(crate) async fn orphan(tx: &mut Tx, job: PrincipalId) -> Result<()> {
    store::job::upsert_ended(tx, job).await?;
    for id in store::lock::list_of_job(tx, job).await? {
        let Some(state) = store::state::lock(tx, id).await? else {
            continue;
        };
        // It may have been given back, or taken away, before the state was held.
        let held = store::lock::find(tx, id).await?;
        let Some(held) = held.filter(|held| held.is_of_job(job)) else {
            continue;
        };
        if failpoint::without(&format!("terraform_state.orphans/{}", state.name.as_str())) {
            continue;
        }
        store::lock::delete(tx, id, Ending::from(&held), End::Orphaned).await?;
        tx.acted("ReleaseOrphanedLock", &state);
    }
    Ok(())
}

/// Maintenance is people's.
fn no_job(tx: &Tx) -> Result<()> {
    match tx.principal() {
        Principal::Job(_) => Err(Error::new(
            Reason::CallerNotAllowed,
            "a job neither takes a maintenance lock nor ends one",
        )),
        Principal::User(_) | Principal::ApiKey(_) | Principal::Service(_) | Principal::Anonymous => Ok(()),
    }
}

/// Whether the caller took the lock before the held one away, a moment ago.
async fn took_away(tx: &mut Tx, state: &State, held: &Lock) -> Result<bool> {
    let Some(released_at) = state.released_at else {
        return Ok(false);
    };
    let theirs = state.released_by() == Some(Caller::of(tx.principal())?);
    Ok(state.released_by_force
        && theirs
        && held.created_at > released_at
        && store::now(tx).await? < released_at + REPEATED_FOR)
}

impl Backend {
    /// Whether who was refused because of a job's lock should try once more: the job may have ended, and what pipelines
    /// told of it has been applied now. At most once in a call.
    pub(crate) async fn settled(&self, error: &Error, tried: &mut bool) -> bool {
        let by_job = error.reason() == Reason::StateLocked && error.told("holder_kind") == Some("job");
        if !by_job || std::mem::replace(tried, true) {
            return false;
        }
        self.kit.caught_up("pipelines").await;
        true
    }
}
