//! Jobs, as the other services ask about them.

use api::pipelines::v1;
use kit::{
    Error, Result, Violations,
    ids::{self, OrgId},
};

use crate::{model::AttemptId, store::job::Job};

/// The most jobs that are asked about at once.
const MOST_JOBS: usize = 1_000;

/// Which jobs are asked about.
pub(crate) struct Asked {
    pub(crate) org: OrgId,
    pub(crate) jobs: Vec<AttemptId>,
}

impl TryFrom<v1::GetJobsRequest> for Asked {
    type Error = Error;

    fn try_from(request: v1::GetJobsRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let org = ids::required("organization_id", &request.organization_id, &mut violations);
        violations.check(request.job_ids.len() <= MOST_JOBS, "job_ids", "must be at most 1,000");
        let mut jobs = Vec::new();
        for (place, id) in request.job_ids.iter().enumerate().take(MOST_JOBS) {
            let id: Option<AttemptId> = ids::required(&format!("job_ids[{place}]"), id, &mut violations);
            jobs.extend(id);
        }
        let org = violations.finish(org)?;
        Ok(Asked { org, jobs })
    }
}

impl From<Job> for v1::Job {
    fn from(job: Job) -> Self {
        let standing = match (job.status.is_live(), job.overdue) {
            (true, false) => v1::JobStanding::Live,
            (true, true) => v1::JobStanding::Expiring,
            (false, _) => v1::JobStanding::Ended,
        };
        v1::Job {
            id: job.id.to_string(),
            execution_id: job.execution.to_string(),
            standing: standing.into(),
        }
    }
}
