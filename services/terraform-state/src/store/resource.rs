//! The resources of current versions: written with the version, and only as far as they are others than before.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, QueryDsl, sql_query,
    sql_types::{Array, Integer, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{Result, crypto::KeyRing, db::Tx};

use crate::{
    model::{
        StateId,
        resource::{Index, Resource, ResourceFilter},
        state::State,
    },
    schema::{state_resources, states},
};

/// Makes these the resources of a state, whose row is held.
pub(crate) async fn replace(tx: &mut Tx, state: &State, index: &Index, ring: &KeyRing) -> Result<()> {
    let hash = index.hash(ring).to_vec();
    if state.resources_hash.as_ref() == Some(&hash) && state.unlisted_resources == index.unlisted {
        return Ok(());
    }
    let addresses: Vec<&String> = index.resources.keys().collect();
    let column = |text: fn(&crate::model::resource::Listed) -> &String| -> Vec<&String> {
        index.resources.values().map(text).collect()
    };
    let instances: Vec<i32> = index.resources.values().map(|listed| listed.instances).collect();
    sql_query(
        "delete from state_resources r where r.org_id = $1 and r.state_id = $2 \
         and not exists (select from unnest($3) as kept (address) where kept.address = r.address)",
    )
    .bind::<SqlUuid, _>(tx.org())
    .bind::<SqlUuid, _>(state.id)
    .bind::<Array<Text>, _>(&addresses)
    .execute(tx)
    .await?;
    sql_query(
        "insert into state_resources as r (org_id, state_id, address, type, provider, module, instances) \
         select $1, $2, listed.* from unnest($3, $4, $5, $6, $7) as listed \
         on conflict (org_id, state_id, address) do update \
         set type = excluded.type, provider = excluded.provider, module = excluded.module, instances = excluded.instances \
         where (r.type, r.provider, r.module, r.instances) \
         is distinct from (excluded.type, excluded.provider, excluded.module, excluded.instances)",
    )
    .bind::<SqlUuid, _>(tx.org())
    .bind::<SqlUuid, _>(state.id)
    .bind::<Array<Text>, _>(&addresses)
    .bind::<Array<Text>, _>(column(|listed| &listed.resource_type))
    .bind::<Array<Text>, _>(column(|listed| &listed.provider))
    .bind::<Array<Text>, _>(column(|listed| &listed.module))
    .bind::<Array<Integer>, _>(instances)
    .execute(tx)
    .await?;
    diesel::update(states::table.find((tx.org(), state.id)))
        .set((
            states::resources_hash.eq(hash),
            states::unlisted_resources.eq(index.unlisted),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Resources by address and state, after this one; at most `limit`.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &ResourceFilter,
    after: Option<(String, StateId)>,
    limit: i64,
) -> Result<Vec<Resource>> {
    let mut query = state_resources::table
        .inner_join(
            states::table.on(states::org_id
                .eq(state_resources::org_id)
                .and(states::id.eq(state_resources::state_id))),
        )
        .filter(state_resources::org_id.eq(tx.org()))
        .filter(states::deleted_at.is_null())
        .select((
            state_resources::state_id,
            states::name,
            state_resources::address,
            state_resources::resource_type,
            state_resources::provider,
            state_resources::module,
            state_resources::instances,
        ))
        .order((state_resources::address.asc(), state_resources::state_id.asc()))
        .limit(limit)
        .into_boxed();
    if let Some(state) = filter.state {
        query = query.filter(state_resources::state_id.eq(state));
    }
    if !filter.prefix.is_empty() {
        // Compared byte by byte: nothing that starts so is greater.
        query = query
            .filter(state_resources::address.ge(filter.prefix.clone()))
            .filter(state_resources::address.lt(format!("{}\u{10ffff}", filter.prefix)));
    }
    if !filter.resource_type.is_empty() {
        query = query.filter(state_resources::resource_type.eq(filter.resource_type.clone()));
    }
    if !filter.provider.is_empty() {
        query = query.filter(state_resources::provider.eq(filter.provider.clone()));
    }
    if !filter.module.is_empty() {
        query = query.filter(state_resources::module.eq(filter.module.clone()));
    }
    if let Some(only) = &filter.only {
        query = query.filter(states::name.eq(only.clone()));
    }
    if let Some((address, state)) = after {
        query = query.filter(state_resources::address.ge(address.clone())).filter(
            state_resources::address
                .gt(address)
                .or(state_resources::state_id.gt(state)),
        );
    }
    Ok(query.load(tx).await?)
}
