//! Locks. Who changes one holds its state's row.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, SelectableHelper, sql_query,
    sql_types::{Bool, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{
        Caller, ExecutionId, LockEnding, PastLockId, PrincipalId, PrincipalKind, StateId, at_micros,
        lock::{Held, Lock, LockFilter, LockId, NewLock, PastLock, Standing},
        state::StateName,
    },
    schema::{
        clock_timestamp, lock_history,
        sql_types::{LockEndingEnum, PrincipalEnum},
        state_locks, states,
    },
};

/// How a lock ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// Its holder gives it back.
    Released,
    /// The caller takes it away, and says why.
    Forced(&'a str),
    /// The job that held it has ended.
    Orphaned,
}

/// What is told of a lock whose job has ended.
const ORPHANED: &str = "the job that held it has ended";

/// A state's lock.
pub(crate) async fn find(tx: &mut Tx, state: StateId) -> Result<Option<Lock>> {
    Ok(state_locks::table
        .find((tx.org(), state))
        .select(Lock::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Takes a state's lock; none where it is held.
pub(crate) async fn insert(
    tx: &mut Tx,
    state: StateId,
    new: &NewLock,
    execution: Option<ExecutionId>,
) -> Result<Option<Lock>> {
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
            state_locks::maintenance_reason.eq(&new.maintenance_reason),
            state_locks::execution_id.eq(execution),
        ))
        .on_conflict((state_locks::org_id, state_locks::state_id))
        .do_nothing()
        .returning(Lock::as_returning())
        .get_result(tx)
        .await
        .optional()?)
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

/// Which lock is to end: that of this id, and of this caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending<'a> {
    pub(crate) id: &'a LockId,
    pub(crate) holder: Caller,
    /// Whether it may be a maintenance lock.
    pub(crate) maintenance: bool,
}

impl<'a> From<&'a Lock> for Ending<'a> {
    fn from(lock: &'a Lock) -> Self {
        Ending {
            id: &lock.id,
            holder: lock.holder(),
            maintenance: true,
        }
    }
}

/// Frees a state, if this lock is held; it goes into the history, and the state notes which one ended last.
pub(crate) async fn delete(tx: &mut Tx, state: StateId, lock: Ending<'_>, end: End<'_>) -> Result<bool> {
    let (ending, by, reason) = match end {
        End::Released => (LockEnding::Released, Some(Caller::of(tx.principal())?), ""),
        End::Forced(reason) => (LockEnding::Forced, Some(Caller::of(tx.principal())?), reason),
        End::Orphaned => (LockEnding::Orphaned, None, ORPHANED),
    };
    let freed = sql_query(
        "with ended as (
           delete from state_locks where org_id = $1 and state_id = $2 and lock_id = $3 and holder_kind = $4 and holder_id = $5
             and ($6 or maintenance_reason = '')
           returning *
         ), kept as (
           insert into lock_history
             (org_id, id, state_id, lock_id, operation, who, info, terraform_version, holder_kind, holder_id, created_at, last_seen_at,
              maintenance_reason, execution_id, ending, ended_by_kind, ended_by_id, ended_reason)
           select org_id, $7, state_id, lock_id, operation, who, info, terraform_version, holder_kind, holder_id, created_at,
             last_seen_at, maintenance_reason, execution_id, $8, $9, $10, $11 from ended
         )
         update states s set released_lock_id = ended.lock_id, released_by_force = $8 <> 'released', released_reason = $11,
           released_by_kind = coalesce($9, ended.holder_kind), released_by_id = coalesce($10, ended.holder_id),
           released_at = clock_timestamp()
         from ended where s.org_id = $1 and s.id = $2",
    )
    .bind::<SqlUuid, _>(tx.org())
    .bind::<SqlUuid, _>(state)
    .bind::<Text, _>(lock.id)
    .bind::<PrincipalEnum, _>(lock.holder.kind)
    .bind::<SqlUuid, _>(lock.holder.id)
    .bind::<Bool, _>(lock.maintenance)
    .bind::<SqlUuid, _>(PastLockId::new())
    .bind::<LockEndingEnum, _>(ending)
    .bind::<Nullable<PrincipalEnum>, _>(by.map(|by| by.kind))
    .bind::<Nullable<SqlUuid>, _>(by.map(|by| by.id))
    .bind::<Text, _>(reason)
    .execute(tx)
    .await?;
    Ok(freed == 1)
}

/// The states that a job holds, in the order in which they are to be held.
pub(crate) async fn list_of_job(tx: &mut Tx, job: PrincipalId) -> Result<Vec<StateId>> {
    Ok(state_locks::table
        .filter(state_locks::org_id.eq(tx.org()))
        .filter(state_locks::holder_id.eq(job))
        .filter(state_locks::holder_kind.eq(PrincipalKind::Job))
        .select(state_locks::state_id)
        .order(state_locks::state_id.asc())
        .load(tx)
        .await?)
}

/// Where a list of locks goes on: when the last one was taken, in microseconds, and its state.
pub(crate) type Cursor = (i64, StateId);

/// The locks that are held, oldest first, after `after`; at most `limit`.
pub(crate) async fn list(tx: &mut Tx, filter: &LockFilter, after: Option<Cursor>, limit: i64) -> Result<Vec<Held>> {
    let mut query = state_locks::table
        .inner_join(
            states::table.on(states::org_id
                .eq(state_locks::org_id)
                .and(states::id.eq(state_locks::state_id))),
        )
        .filter(state_locks::org_id.eq(tx.org()))
        .select((state_locks::state_id, states::name, Lock::as_select()))
        .order((state_locks::created_at.asc(), state_locks::state_id.asc()))
        .limit(limit)
        .into_boxed();
    if let Some(since) = filter.silent_since {
        query = query.filter(state_locks::last_seen_at.lt(at_micros(since)?));
    }
    if filter.maintenance_only {
        query = query.filter(state_locks::maintenance_reason.ne(""));
    }
    if let Some(only) = &filter.only {
        query = query.filter(states::name.eq(only.clone()));
    }
    if let Some((micros, state)) = after {
        let at = at_micros(micros)?;
        query = query.filter(state_locks::created_at.ge(at)).filter(
            state_locks::created_at
                .gt(at)
                .or(state_locks::created_at.eq(at).and(state_locks::state_id.gt(state))),
        );
    }
    let rows: Vec<(StateId, StateName, Lock)> = query.load(tx).await?;
    let held = rows.into_iter().map(|(state, name, lock)| Held {
        state,
        name,
        lock,
        standing: Standing::NoJob,
    });
    Ok(held.collect())
}

/// The locks that are over, newest end first, below `below`; at most `limit`.
pub(crate) async fn list_past(
    tx: &mut Tx,
    state: Option<StateId>,
    below: Option<PastLockId>,
    limit: i64,
) -> Result<Vec<PastLock>> {
    let lock = (
        lock_history::lock_id,
        lock_history::operation,
        lock_history::who,
        lock_history::info,
        lock_history::terraform_version,
        lock_history::holder_kind,
        lock_history::holder_id,
        lock_history::created_at,
        lock_history::last_seen_at,
        lock_history::maintenance_reason,
        lock_history::execution_id,
    );
    let mut query = lock_history::table
        .filter(lock_history::org_id.eq(tx.org()))
        .select((
            lock_history::id,
            lock_history::state_id,
            lock,
            lock_history::ending,
            lock_history::ended_by_kind,
            lock_history::ended_by_id,
            lock_history::ended_reason,
            lock_history::ended_at,
        ))
        .order(lock_history::id.desc())
        .limit(limit)
        .into_boxed();
    if let Some(state) = state {
        query = query.filter(lock_history::state_id.eq(state));
    }
    if let Some(below) = below {
        query = query.filter(lock_history::id.lt(below));
    }
    Ok(query.load(tx).await?)
}
