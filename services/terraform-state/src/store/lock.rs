//! Locks. Who changes one holds its state's row.

use diesel::{ExpressionMethods, NullableExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{
        Caller, StateId,
        lock::{Lock, LockId, NewLock},
    },
    schema::{clock_timestamp, state_locks, states},
};

/// A state's lock.
pub(crate) async fn find(tx: &mut Tx, state: StateId) -> Result<Option<Lock>> {
    Ok(state_locks::table
        .find((tx.org(), state))
        .select(Lock::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Takes a state's lock, which must be free.
pub(crate) async fn insert(tx: &mut Tx, state: StateId, new: &NewLock) -> Result<Lock> {
    let holder = Caller::of(tx.principal())?;
    Ok(diesel::insert_into(state_locks::table)
        .values((
            state_locks::org_id.eq(tx.org()),
            state_locks::state_id.eq(state),
            state_locks::lock_id.eq(&new.id),
            state_locks::operation.eq(&new.operation),
            state_locks::who.eq(&new.who),
            state_locks::info.eq(&new.info),
            state_locks::terraform_version.eq(&new.terraform_version),
            state_locks::holder_kind.eq(holder.kind),
            state_locks::holder_id.eq(holder.id),
        ))
        .returning(Lock::as_returning())
        .get_result(tx)
        .await?)
}

/// Notes that the holder was heard of; nothing where the caller does not hold the state.
pub(crate) async fn update_seen(tx: &mut Tx, state: StateId) -> Result<Option<Lock>> {
    let caller = Caller::of(tx.principal())?;
    Ok(diesel::update(state_locks::table.find((tx.org(), state)))
        .filter(state_locks::holder_kind.eq(caller.kind))
        .filter(state_locks::holder_id.eq(caller.id))
        .set(state_locks::last_seen_at.eq(clock_timestamp()))
        .returning(Lock::as_returning())
        .get_result(tx)
        .await
        .optional()?)
}

/// Frees a state, and notes which lock was given back or taken away (`reason`) last.
pub(crate) async fn delete(tx: &mut Tx, state: StateId, lock: &LockId, reason: Option<&str>) -> Result<()> {
    let caller = Caller::of(tx.principal())?;
    diesel::delete(state_locks::table.find((tx.org(), state)))
        .execute(tx)
        .await?;
    diesel::update(states::table.find((tx.org(), state)))
        .set((
            states::released_lock_id.eq(lock.as_str()),
            states::released_by_force.eq(reason.is_some()),
            states::released_reason.eq(reason.unwrap_or_default()),
            states::released_by_kind.eq(caller.kind),
            states::released_by_id.eq(caller.id),
            states::released_at.eq(clock_timestamp().nullable()),
        ))
        .execute(tx)
        .await?;
    Ok(())
}
