//! PipelineService.

use api::pipelines::v1::{
    CancelExecutionRequest, CancelExecutionResponse, CreatePipelineRequest, CreatePipelineResponse,
    GetExecutionRequest, GetExecutionResponse, GetPipelineRequest, GetPipelineResponse, ListExecutionsRequest,
    ListExecutionsResponse, ListPipelinesRequest, ListPipelinesResponse, ListStagesRequest, ListStagesResponse,
    ReadStageLogsRequest, RunPipelineRequest, RunPipelineResponse, pipeline_service_server::PipelineService,
};
use kit::{
    Error, Result,
    auth::scope::{Admitted, OrgScope, admitted},
    db::Tx,
    page::Listing,
    service::Kit,
};
use serde::Serialize;
use tonic::{Request, Response, Status};

use super::log::{self, LogStream, Logs};
use crate::{
    doorbell::Doorbell,
    model::{
        Author, DesignId, ExecutionId, PipelineId,
        design::Design,
        execution::{ExecutionFilter, Shown},
        micros,
        pipeline::{NewPipeline, Origin, PipelineFilter},
    },
    store,
    wire::{
        list::{Asked, page},
        pipeline::Run,
    },
};

/// Answers PipelineService.
pub(crate) struct Pipelines {
    pub(crate) kit: Kit,
    pub(crate) logs: Logs,
    pub(crate) bell: Doorbell,
}

#[tonic::async_trait]
impl PipelineService for Pipelines {
    type ReadStageLogsStream = LogStream;

    async fn create_pipeline(
        &self,
        request: Request<CreatePipelineRequest>,
    ) -> Result<Response<CreatePipelineResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let new = NewPipeline::try_from(request)?;
        Author::of(scope.principal())?;
        self.meet(&scope, new.design_id).await?;
        let reply = self.kit.db.write(&scope, async |tx| {
            design(tx, new.design_id).await?;
            let pipeline = store::pipeline::insert(tx, &new).await?;
            tx.about(&pipeline);
            Ok(CreatePipelineResponse {
                pipeline: Some(pipeline.into()),
            })
        });
        Ok(reply.await?)
    }

    async fn get_pipeline(
        &self,
        request: Request<GetPipelineRequest>,
    ) -> Result<Response<GetPipelineResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = PipelineId::try_from(request)?;
        let found = self.kit.db.read(&scope, async |tx| store::pipeline::find(tx, id).await);
        let pipeline = found.await?.ok_or_else(|| Error::not_found("pipeline", id))?;
        Ok(Response::new(GetPipelineResponse {
            pipeline: Some(pipeline.into()),
        }))
    }

    async fn list_pipelines(
        &self,
        request: Request<ListPipelinesRequest>,
    ) -> Result<Response<ListPipelinesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<PipelineFilter> = request.try_into()?;
        let listing = self.listing(&scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let rows = self.kit.db.read(&scope, async |tx| {
            store::pipeline::list(tx, &asked.filter, after, asked.size.fetch()).await
        });
        let rows = rows.await?;
        let (pipelines, next_page_token) = page(&listing, asked.size, rows, |row| row.name.clone(), Into::into);
        Ok(Response::new(ListPipelinesResponse {
            pipelines,
            next_page_token,
        }))
    }

    async fn run_pipeline(
        &self,
        request: Request<RunPipelineRequest>,
    ) -> Result<Response<RunPipelineResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Run { pipeline: id, version } = request.try_into()?;
        let author = Author::of(scope.principal())?;
        self.learn(&scope, id, version).await?;
        let reply = self.kit.db.write(&scope, async |tx| {
            let pipeline = store::pipeline::find(tx, id).await?;
            let pipeline = pipeline.ok_or_else(|| Error::not_found("pipeline", id))?;
            let version = design(tx, pipeline.design_id).await?.version(version)?;
            let inserted = store::execution::insert(tx, &pipeline, version, Origin::Caller(author)).await?;
            let execution = inserted.ok_or_else(|| Error::internal("a new id is taken"))?;
            tx.about(&execution);
            let shown = store::execution::shown(tx, execution).await?;
            Ok(RunPipelineResponse {
                execution: Some(shown.into()),
            })
        });
        let reply = reply.await?;
        self.bell.ring();
        Ok(reply)
    }

    async fn get_execution(
        &self,
        request: Request<GetExecutionRequest>,
    ) -> Result<Response<GetExecutionResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = ExecutionId::try_from(request)?;
        let shown = self.kit.db.read(&scope, async |tx| {
            let execution = store::execution::find(tx, id).await?;
            let execution = execution.ok_or_else(|| Error::not_found("execution", id))?;
            store::execution::shown(tx, execution).await
        });
        Ok(Response::new(GetExecutionResponse {
            execution: Some(shown.await?.into()),
        }))
    }

    async fn list_executions(
        &self,
        request: Request<ListExecutionsRequest>,
    ) -> Result<Response<ListExecutionsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<ExecutionFilter> = request.try_into()?;
        let listing = self.listing(&scope, &asked.filter);
        let after = listing.open::<(i64, ExecutionId)>(&asked.token)?;
        let after = after.and_then(|(created, id)| Some((micros::time(created)?, id)));
        let rows = self.kit.db.read(&scope, async |tx| {
            store::execution::list(tx, &asked.filter, after, asked.size.fetch()).await
        });
        let rows = rows.await?;
        let (executions, next_page_token) = page(
            &listing,
            asked.size,
            rows,
            |row| (micros::of(row.created_at), row.id),
            Into::into,
        );
        Ok(Response::new(ListExecutionsResponse {
            executions,
            next_page_token,
        }))
    }

    async fn cancel_execution(
        &self,
        request: Request<CancelExecutionRequest>,
    ) -> Result<Response<CancelExecutionResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let id = ExecutionId::try_from(request)?;
        let reply = self.kit.db.write(&scope, async |tx| {
            let before = store::execution::lock(tx, id).await?;
            let before = before.ok_or_else(|| Error::not_found("execution", id))?;
            tx.about(&before);
            let execution = store::execution::cancel(tx, before).await?;
            let shown: Shown = store::execution::shown(tx, execution).await?;
            Ok(CancelExecutionResponse {
                execution: Some(shown.into()),
            })
        });
        Ok(reply.await?)
    }

    async fn list_stages(&self, request: Request<ListStagesRequest>) -> Result<Response<ListStagesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<ExecutionId> = request.try_into()?;
        let listing = self.listing(&scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let rows = self.kit.db.read(&scope, async |tx| {
            let found = store::execution::find(tx, asked.filter).await?;
            let execution = found.ok_or_else(|| Error::not_found("execution", asked.filter))?;
            let stages = store::stage::list(tx, execution.id, after, asked.size.fetch()).await?;
            store::stage::shown(tx, stages).await
        });
        let rows = rows.await?;
        let (stages, next_page_token) = page(&listing, asked.size, rows, |row| row.stage.position, Into::into);
        Ok(Response::new(ListStagesResponse {
            stages,
            next_page_token,
        }))
    }

    async fn read_stage_logs(
        &self,
        request: Request<ReadStageLogsRequest>,
    ) -> Result<Response<Self::ReadStageLogsStream>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        Ok(Response::new(log::read(&self.logs, &scope, request).await?))
    }
}

impl Pipelines {
    /// The list that a call pages through.
    fn listing(&self, scope: &OrgScope, filter: &impl Serialize) -> Listing<'_> {
        Listing::new(&self.kit.ring, scope.call().method.action, scope.org().0, filter)
    }

    /// Waits until the version that is to be run is known: for the newest one always, or one that was published a
    /// moment ago would be passed over; for another one only where it is not known.
    ///
    /// # Errors
    /// DEPENDENCY_UNAVAILABLE where designs has more to tell than could be heard.
    async fn learn(&self, scope: &OrgScope, id: PipelineId, version: i32) -> Result<()> {
        let known = version != 0
            && self
                .kit
                .db
                .look(scope, async |tx| {
                    let Some(pipeline) = store::pipeline::find(tx, id).await? else {
                        return Ok(false);
                    };
                    let design = store::design::find(tx, pipeline.design_id).await?;
                    Ok(design.is_some_and(|design| design.version(version).is_ok()))
                })
                .await?;
        if known || self.kit.caught_up("designs").await {
            Ok(())
        } else {
            Err(Error::unavailable("designs", "its newest versions are not known"))
        }
    }

    /// Waits for what designs has told where a design is not known yet: it may have been made a moment ago.
    async fn meet(&self, scope: &OrgScope, id: DesignId) -> Result<()> {
        let known = self.kit.db.look(scope, async |tx| store::design::find(tx, id).await);
        if known.await?.is_none() {
            self.kit.caught_up("designs").await;
        }
        Ok(())
    }
}

/// The design, which must be there.
async fn design(tx: &mut Tx, id: DesignId) -> Result<Design> {
    let found = store::design::find(tx, id).await?;
    found
        .filter(|design| !design.deleted)
        .ok_or_else(|| Error::not_found("design", id))
}
