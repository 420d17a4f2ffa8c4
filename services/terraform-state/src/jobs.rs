//! How the jobs stand that hold locks, as pipelines says.

use std::{collections::HashMap, time::Duration};

use api::pipelines::v1::{GetJobsRequest, JobStanding, job_service_client::JobServiceClient};
use kit::{
    auth::scope::OrgScope,
    rpc::client::{PeerChannel, Peers},
};

use crate::model::{
    PrincipalKind,
    lock::{Held, Standing},
};

/// Bounds each answer of pipelines; who looks at locks is not to wait for it.
const ANSWER: Duration = Duration::from_secs(2);

/// Asks pipelines.
#[derive(Clone)]
pub(crate) struct Jobs(JobServiceClient<PeerChannel>);

impl Jobs {
    pub(crate) fn new(peers: &Peers) -> Self {
        Jobs(JobServiceClient::new(peers.channel("pipelines")))
    }

    /// Fills in how the jobs stand; where nobody answers, or pipelines knows no such job, that is not known.
    pub(crate) async fn fill(&self, scope: &OrgScope, locks: &mut [Held]) {
        let mut job_ids: Vec<String> = Vec::new();
        for held in locks
            .iter_mut()
            .filter(|held| held.lock.holder_kind == PrincipalKind::Job)
        {
            held.standing = Standing::Unknown;
            job_ids.push(held.lock.holder_id.to_string());
        }
        if job_ids.is_empty() {
            return;
        }
        job_ids.sort_unstable();
        job_ids.dedup();
        let request = GetJobsRequest {
            organization_id: scope.org().to_string(),
            job_ids,
        };
        let mut jobs = self.0.clone();
        let answer = tokio::time::timeout(ANSWER, jobs.get_jobs(request)).await;
        let Ok(Ok(answer)) = answer else {
            tracing::debug!("pipelines does not say how jobs stand");
            return;
        };
        let standings: HashMap<String, JobStanding> = answer
            .into_inner()
            .jobs
            .into_iter()
            .map(|job| (job.id.clone(), job.standing()))
            .collect();
        for held in locks {
            held.standing = match standings.get(&held.lock.holder_id.to_string()) {
                Some(JobStanding::Live) => Standing::Live,
                Some(JobStanding::Expiring) => Standing::Expiring,
                Some(JobStanding::Ended) => Standing::Orphaned,
                Some(JobStanding::Unspecified) | None => held.standing,
            };
        }
    }
}
