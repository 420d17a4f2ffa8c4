//! States.

use diesel::{BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{
        DesignId, StateId,
        lock::Lock,
        state::{Labels, Shown, State, StateChange, StateFilter, StateName},
        version::Version,
    },
    schema::{state_locks, state_versions, states},
};

/// States beside their current versions and locks.
macro_rules! shown {
    () => {
        states::table
            .left_join(
                state_versions::table.on(state_versions::org_id
                    .eq(states::org_id)
                    .and(state_versions::state_id.eq(states::id))
                    .and(state_versions::number.eq(states::latest_version))),
            )
            .left_join(
                state_locks::table.on(state_locks::org_id
                    .eq(states::org_id)
                    .and(state_locks::state_id.eq(states::id))),
            )
            .select((
                State::as_select(),
                Option::<Version>::as_select(),
                Option::<Lock>::as_select(),
            ))
    };
}

fn shown((state, version, lock): (State, Option<Version>, Option<Lock>)) -> Shown {
    Shown { state, version, lock }
}

/// Makes a state, and holds it until the transaction ends; none where the organization has one of this name.
pub(crate) async fn insert(
    tx: &mut Tx,
    id: StateId,
    name: &StateName,
    design: Option<DesignId>,
) -> Result<Option<State>> {
    Ok(diesel::insert_into(states::table)
        .values((
            states::org_id.eq(tx.org()),
            states::id.eq(id),
            states::name.eq(name),
            states::design_id.eq(design),
        ))
        .on_conflict((states::org_id, states::name))
        .do_nothing()
        .returning(State::as_returning())
        .get_result(tx)
        .await
        .optional()?)
}

/// A state that is not deleted.
pub(crate) async fn find(tx: &mut Tx, id: StateId) -> Result<Option<State>> {
    Ok(states::table
        .find((tx.org(), id))
        .filter(states::deleted_at.is_null())
        .select(State::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// A state by its name, deleted or not.
pub(crate) async fn find_named(tx: &mut Tx, name: &StateName) -> Result<Option<State>> {
    Ok(states::table
        .filter(states::org_id.eq(tx.org()))
        .filter(states::name.eq(name))
        .select(State::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// A state, held until the transaction ends: of two who write, the second sees what the first wrote.
pub(crate) async fn lock(tx: &mut Tx, id: StateId) -> Result<Option<State>> {
    Ok(states::table
        .find((tx.org(), id))
        .filter(states::deleted_at.is_null())
        .select(State::as_select())
        .for_update()
        .first(tx)
        .await
        .optional()?)
}

/// As [`lock`], one that is deleted.
pub(crate) async fn lock_deleted(tx: &mut Tx, id: StateId) -> Result<Option<State>> {
    Ok(states::table
        .find((tx.org(), id))
        .filter(states::deleted_at.is_not_null())
        .select(State::as_select())
        .for_update()
        .first(tx)
        .await
        .optional()?)
}

/// As [`lock`], by the state's name, deleted or not.
pub(crate) async fn lock_named(tx: &mut Tx, name: &StateName) -> Result<Option<State>> {
    Ok(states::table
        .filter(states::org_id.eq(tx.org()))
        .filter(states::name.eq(name))
        .select(State::as_select())
        .for_update()
        .first(tx)
        .await
        .optional()?)
}

/// A state with what is shown beside it.
pub(crate) async fn find_shown(tx: &mut Tx, id: StateId) -> Result<Option<Shown>> {
    let row = shown!()
        .filter(states::org_id.eq(tx.org()))
        .filter(states::id.eq(id))
        .filter(states::deleted_at.is_null())
        .first(tx)
        .await
        .optional()?;
    Ok(row.map(shown))
}

/// As [`find_shown`], by the state's name, deleted or not.
pub(crate) async fn find_shown_named(tx: &mut Tx, name: &StateName) -> Result<Option<Shown>> {
    let row = shown!()
        .filter(states::org_id.eq(tx.org()))
        .filter(states::name.eq(name))
        .first(tx)
        .await
        .optional()?;
    Ok(row.map(shown))
}

/// States with what is shown beside them, by name, after the one named `after`; at most `limit`.
pub(crate) async fn list(tx: &mut Tx, filter: &StateFilter, after: Option<String>, limit: i64) -> Result<Vec<Shown>> {
    let mut query = shown!()
        .filter(states::org_id.eq(tx.org()))
        .order(states::name.asc())
        .limit(limit)
        .into_boxed();
    if let Some(design) = filter.design {
        query = query.filter(states::design_id.eq(design));
    }
    if !filter.prefix.is_empty() {
        // Names are ASCII and compared byte by byte; LIKE would tell of rows that the policy hides, so no index serves it.
        query = query
            .filter(states::name.ge(filter.prefix.clone()))
            .filter(states::name.lt(format!("{}\u{7f}", filter.prefix)));
    }
    if let Some(only) = &filter.only {
        query = query.filter(states::name.eq(only.clone()));
    }
    query = match filter.deleted {
        false => query.filter(states::deleted_at.is_null()),
        true => query.filter(states::deleted_at.is_not_null()),
    };
    query = match filter.locked {
        Some(true) => query.filter(state_locks::state_id.is_not_null()),
        Some(false) => query.filter(state_locks::state_id.is_null()),
        None => query,
    };
    if let Some(silent_for) = filter.silent_for {
        query = query.filter(state_locks::last_seen_at.lt(super::now(tx).await? - silent_for));
    }
    if let Some(after) = after {
        query = query.filter(states::name.gt(after));
    }
    let rows: Vec<(State, Option<Version>, Option<Lock>)> = query.load(tx).await?;
    Ok(rows.into_iter().map(shown).collect())
}

/// Writes what people say about a state; the etag is another one then.
pub(crate) async fn update(tx: &mut Tx, id: StateId, change: &StateChange) -> Result<State> {
    #[derive(diesel::AsChangeset)]
    #[diesel(table_name = states)]
    struct Changes {
        labels: Option<serde_json::Value>,
        design_id: Option<Option<DesignId>>,
    }
    let changes = Changes {
        labels: change.labels.as_ref().map(Labels::json),
        design_id: change.design,
    };
    Ok(diesel::update(states::table.find((tx.org(), id)))
        .set((changes, change.retention, states::revision.eq(states::revision + 1)))
        .returning(State::as_returning())
        .get_result(tx)
        .await?)
}

/// Deletes a state, or brings it back.
pub(crate) async fn update_deleted(tx: &mut Tx, id: StateId, deleted: bool) -> Result<State> {
    let deleted_at = match deleted {
        true => Some(super::now(tx).await?),
        false => None,
    };
    Ok(diesel::update(states::table.find((tx.org(), id)))
        .set((
            states::deleted_at.eq(deleted_at),
            states::revision.eq(states::revision + 1),
        ))
        .returning(State::as_returning())
        .get_result(tx)
        .await?)
}

/// Adds to the bytes that a state's versions take, or takes away from them.
pub(crate) async fn add_stored(tx: &mut Tx, id: StateId, bytes: i64) -> Result<()> {
    diesel::update(states::table.find((tx.org(), id)))
        .set(states::stored_bytes.eq(states::stored_bytes + bytes))
        .execute(tx)
        .await?;
    Ok(())
}

/// Bytes of all versions of the organization.
pub(crate) async fn stored_bytes(tx: &mut Tx) -> Result<u64> {
    // A sum of bigints is numeric.
    let sum: Option<i64> = states::table
        .filter(states::org_id.eq(tx.org()))
        .select(diesel::dsl::sql::<diesel::sql_types::Nullable<diesel::sql_types::BigInt>>("sum(stored_bytes)::bigint"))
        .first(tx)
        .await?;
    Ok(sum.and_then(|sum| u64::try_from(sum).ok()).unwrap_or(0))
}
