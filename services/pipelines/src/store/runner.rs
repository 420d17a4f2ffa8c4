//! Runners. One belongs to its organization by name; in that name stages are taken by whoever registered it last.

use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl, SelectableHelper, upsert::excluded};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{Author, RunnerId, RunnerName, TerraformVersion, runner::Runner},
    schema::{clock_timestamp, runners},
};

/// Makes a runner known, or finds it again by its name; from now on it is the caller's.
pub(crate) async fn upsert(tx: &mut Tx, name: &RunnerName, terraform: &TerraformVersion) -> Result<Runner> {
    let caller = Author::of(tx.principal())?;
    Ok(diesel::insert_into(runners::table)
        .values((
            runners::org_id.eq(tx.org()),
            runners::id.eq(RunnerId::new()),
            runners::name.eq(name),
            runners::terraform_version.eq(terraform),
            runners::principal_kind.eq(caller.kind),
            runners::principal_id.eq(caller.id),
        ))
        .on_conflict((runners::org_id, runners::name))
        .do_update()
        .set((
            runners::terraform_version.eq(excluded(runners::terraform_version)),
            runners::principal_kind.eq(excluded(runners::principal_kind)),
            runners::principal_id.eq(excluded(runners::principal_id)),
            runners::seen_at.eq(clock_timestamp()),
        ))
        .returning(Runner::as_returning())
        .get_result(tx)
        .await?)
}

/// Notes that a runner of the caller's was heard of; `false` where it is none of theirs.
pub(crate) async fn update_seen(tx: &mut Tx, id: RunnerId) -> Result<bool> {
    let caller = Author::of(tx.principal())?;
    let own = runners::principal_kind
        .eq(caller.kind)
        .and(runners::principal_id.eq(caller.id));
    let seen = diesel::update(runners::table.find((tx.org(), id)).filter(own))
        .set(runners::seen_at.eq(clock_timestamp()))
        .execute(tx)
        .await?;
    Ok(seen == 1)
}

/// A runner's name.
pub(crate) async fn name(tx: &mut Tx, id: RunnerId) -> Result<RunnerName> {
    Ok(runners::table
        .find((tx.org(), id))
        .select(runners::name)
        .first(tx)
        .await?)
}

/// Runners by name, after the one of this name; at most `limit`.
pub(crate) async fn list(tx: &mut Tx, after: Option<RunnerName>, limit: i64) -> Result<Vec<Runner>> {
    let mut query = runners::table
        .filter(runners::org_id.eq(tx.org()))
        .select(Runner::as_select())
        .order(runners::name)
        .limit(limit)
        .into_boxed();
    if let Some(name) = after {
        query = query.filter(runners::name.gt(name));
    }
    Ok(query.load(tx).await?)
}
