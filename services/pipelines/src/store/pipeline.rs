//! Pipelines; nothing changes one.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{Error, Reason, Result, db::Tx, error::violates};

use crate::{
    model::{
        Author, DesignId, PipelineId, PipelineName, StateName,
        pipeline::{NewPipeline, Pipeline, PipelineFilter, PipelineRow},
    },
    schema::pipelines,
};

/// Makes a pipeline.
///
/// # Errors
/// RESOURCE_EXISTS where the organization has one of this name.
pub(crate) async fn insert(tx: &mut Tx, new: &NewPipeline) -> Result<Pipeline> {
    let author = Author::of(tx.principal())?;
    let row = PipelineRow {
        org_id: tx.org(),
        id: PipelineId::new(),
        name: &new.name,
        design_id: new.design_id,
        state_name: &new.state_name,
        stages: &new.stages,
        on_drift: new.on_drift,
        creator_kind: author.kind,
        creator_id: author.id,
    };
    let inserted = diesel::insert_into(pipelines::table)
        .values(row)
        .returning(Pipeline::as_returning())
        .get_result(tx)
        .await;
    inserted.map_err(|error| {
        if violates(&error, "pipelines_name_key") {
            Error::new(Reason::ResourceExists, "the organization has a pipeline of this name")
                .with("resource", "pipeline")
        } else {
            error.into()
        }
    })
}

/// A pipeline.
pub(crate) async fn find(tx: &mut Tx, id: PipelineId) -> Result<Option<Pipeline>> {
    Ok(pipelines::table
        .find((tx.org(), id))
        .select(Pipeline::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Pipelines by name, after a name; at most `limit`.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &PipelineFilter,
    after: Option<PipelineName>,
    limit: i64,
) -> Result<Vec<Pipeline>> {
    let mut query = pipelines::table
        .filter(pipelines::org_id.eq(tx.org()))
        .select(Pipeline::as_select())
        .order(pipelines::name)
        .limit(limit)
        .into_boxed();
    if let Some(design) = filter.design {
        query = query.filter(pipelines::design_id.eq(design));
    }
    if let Some(name) = after {
        query = query.filter(pipelines::name.gt(name));
    }
    Ok(query.load(tx).await?)
}

/// The pipelines that drift of a design in a state starts.
pub(crate) async fn list_on_drift(tx: &mut Tx, design: DesignId, state: &StateName) -> Result<Vec<Pipeline>> {
    Ok(pipelines::table
        .filter(pipelines::org_id.eq(tx.org()).and(pipelines::design_id.eq(design)))
        .filter(pipelines::state_name.eq(state).and(pipelines::on_drift))
        .order(pipelines::id)
        .select(Pipeline::as_select())
        .load(tx)
        .await?)
}
