//! JobService: what the other services ask about jobs.

use std::sync::Arc;

use api::pipelines::v1::{
    CheckJobCredentialRequest, CheckJobCredentialResponse, GetJobsRequest, GetJobsResponse,
    job_service_server::JobService,
};
use kit::{
    Error, Reason,
    auth::scope::{PeerScope, admitted},
    crypto::KeyRing,
    db::Db,
    ids::Principal,
};
use tonic::{Request, Response, Status};

use crate::{store, wire};

/// Answers JobService.
pub(crate) struct Jobs {
    pub(crate) db: Db,
    pub(crate) ring: Arc<KeyRing>,
}

#[tonic::async_trait]
impl JobService for Jobs {
    async fn check_job_credential(
        &self,
        request: Request<CheckJobCredentialRequest>,
    ) -> Result<Response<CheckJobCredentialResponse>, Status> {
        let (scope, request): (PeerScope, _) = admitted(request)?;
        let credential = wire::lease::credential(request)?;
        let found = self.db.read(&scope, async |tx| {
            let Some((org, attempt)) = store::lease::find_by_credential(tx, &self.ring, &credential).await? else {
                return Ok(None);
            };
            tx.enter(org, Principal::Job(attempt.0)).await?;
            Ok(store::lease::find_job(tx, attempt).await?.map(|job| (org, job)))
        });
        let (org, job) = found.await?.ok_or_else(|| {
            Error::new(
                Reason::CredentialInvalid,
                "the job credential is unknown, or its lease has ended",
            )
        })?;
        // A pipeline may name any state beside its design: the two are bound here by name alone, and terraform-state
        // refuses a state that belongs to another design.
        Ok(Response::new(CheckJobCredentialResponse {
            organization_id: org.to_string(),
            job_id: job.attempt.id.to_string(),
            permissions: wire::lease::permissions(job.kind),
            design_id: job.design.to_string(),
            state_name: job.state.into(),
            expires_in: Some(wire::lease::left(job.attempt.fence_at, job.asked_at)),
            execution_id: job.execution.to_string(),
        }))
    }

    async fn get_jobs(&self, request: Request<GetJobsRequest>) -> Result<Response<GetJobsResponse>, Status> {
        let (scope, request): (PeerScope, _) = admitted(request)?;
        let wire::job::Asked { org, jobs } = request.try_into()?;
        let slice = self.db.slice();
        let found = self.db.read(&scope, async |tx| {
            tx.enter(org, Principal::Service(slice)).await?;
            store::job::list(tx, &jobs).await
        });
        Ok(Response::new(GetJobsResponse {
            jobs: found.await?.into_iter().map(Into::into).collect(),
        }))
    }
}
