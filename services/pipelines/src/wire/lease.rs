//! What runners and their jobs ask, and what they are answered.

use std::time::Duration;

use api::pipelines::v1;
use kit::{Error, Violations, ids};
use prost::Message;
use secrecy::SecretString;
use time::OffsetDateTime;

use super::timestamp;
use crate::model::{
    AttemptId, FailureDetail, FailureReason, RunnerId, RunnerName, StageId, StageKind, TerraformVersion, attempt::End,
    log::MOST_PIECE_BYTES, runner::Runner,
};

/// The longest that a call waits for a stage.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// The most bytes of a plan file.
const MOST_PLAN_BYTES: usize = 3 << 20;
/// The most characters of a job credential.
const LONGEST_CREDENTIAL: usize = 256;

/// A runner to register.
pub(crate) struct Register {
    pub(crate) name: RunnerName,
    pub(crate) terraform: TerraformVersion,
}

impl TryFrom<v1::RegisterRequest> for Register {
    type Error = Error;

    fn try_from(request: v1::RegisterRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let name = RunnerName::parse("name", request.name, &mut violations);
        let terraform = TerraformVersion::parse("terraform_version", request.terraform_version, &mut violations);
        let name = violations.finish(name)?;
        Ok(Register { name, terraform })
    }
}

/// Who looks for a stage, and for how long.
pub(crate) struct Acquire {
    pub(crate) runner: RunnerId,
    pub(crate) wait: Duration,
}

impl TryFrom<v1::AcquireRequest> for Acquire {
    type Error = Error;

    fn try_from(request: v1::AcquireRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let runner = ids::required("runner_id", &request.runner_id, &mut violations);
        let wait = Duration::try_from(request.wait.unwrap_or_default())
            .ok()
            .filter(|wait| *wait <= LONGEST_WAIT);
        violations.check(wait.is_some(), "wait", "must be 0 to 20 s");
        let (runner, wait) = violations.finish(runner.zip(wait))?;
        Ok(Acquire { runner, wait })
    }
}

/// A lease as its runner knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) id: AttemptId,
    pub(crate) generation: i64,
}

impl Named {
    fn parse(id: &str, generation: i64, violations: &mut Violations) -> Option<Named> {
        violations.check(generation > 0, "generation", "must be positive");
        let id = ids::required("lease_id", id, violations)?;
        Some(Named { id, generation })
    }
}

impl TryFrom<v1::StartRequest> for Named {
    type Error = Error;

    fn try_from(request: v1::StartRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let lease = Named::parse(&request.lease_id, request.generation, &mut violations);
        violations.finish(lease)
    }
}

impl TryFrom<v1::RenewRequest> for Named {
    type Error = Error;

    fn try_from(request: v1::RenewRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let lease = Named::parse(&request.lease_id, request.generation, &mut violations);
        violations.finish(lease)
    }
}

/// More of a log.
pub(crate) struct Append {
    pub(crate) lease: Named,
    pub(crate) offset: i64,
    pub(crate) content: Vec<u8>,
}

impl TryFrom<v1::AppendLogRequest> for Append {
    type Error = Error;

    fn try_from(request: v1::AppendLogRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let lease = Named::parse(&request.lease_id, request.generation, &mut violations);
        violations.check(request.offset >= 0, "offset", "must not be negative");
        violations.check(
            (1..=MOST_PIECE_BYTES).contains(&request.content.len()),
            "content",
            "must have 1 byte to 1 MiB",
        );
        Ok(Append {
            lease: violations.finish(lease)?,
            offset: request.offset,
            content: request.content,
        })
    }
}

/// The end of a lease as its runner tells it.
pub(crate) struct Told {
    pub(crate) lease: Named,
    pub(crate) end: End,
    pub(crate) log_bytes: i64,
    pub(crate) plan: Vec<u8>,
    /// What makes two reports the same, encoded.
    pub(crate) report: Vec<u8>,
}

impl TryFrom<v1::CompleteRequest> for Told {
    type Error = Error;

    fn try_from(request: v1::CompleteRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let lease = Named::parse(&request.lease_id, request.generation, &mut violations);
        let report = v1::CompleteRequest {
            lease_id: String::new(),
            generation: 0,
            request_id: String::new(),
            ..request.clone()
        };
        let detail = FailureDetail::parse("failure_detail", request.failure_detail, &mut violations);
        let reason = FailureReason::from_wire(&request.failure_reason).filter(|reason| reason.is_a_runners());
        let outcome = v1::StageOutcome::try_from(request.outcome).ok();
        let failed = outcome == Some(v1::StageOutcome::Failed);
        if failed {
            violations.check(
                reason.is_some(),
                "failure_reason",
                "must be one of Stage's that a runner gives",
            );
        } else {
            violations.check(
                request.failure_reason.is_empty(),
                "failure_reason",
                "is for what failed",
            );
        }
        let end = match outcome {
            Some(v1::StageOutcome::Succeeded) => {
                violations.check(detail.as_str().is_empty(), "failure_detail", "is for what was not done");
                Some(End::Succeeded)
            }
            Some(v1::StageOutcome::Failed) => reason.map(|reason| End::Failed(reason, detail)),
            Some(v1::StageOutcome::Cancelled) => Some(End::Cancelled(detail)),
            Some(v1::StageOutcome::Unspecified) => {
                violations.add("outcome", "is required");
                None
            }
            None => {
                violations.add("outcome", "must be a known value");
                None
            }
        };
        violations.check(request.log_bytes >= 0, "log_bytes", "must not be negative");
        violations.check(request.plan.len() <= MOST_PLAN_BYTES, "plan", "must have at most 3 MiB");
        violations.check(
            request.plan.is_empty() || matches!(end, Some(End::Succeeded)),
            "plan",
            "is for a plan that succeeded",
        );
        let (lease, end) = violations.finish(lease.zip(end))?;
        Ok(Told {
            lease,
            end,
            log_bytes: request.log_bytes,
            plan: request.plan,
            report: report.encode_to_vec(),
        })
    }
}

/// A log to read.
pub(crate) struct Read {
    pub(crate) stage: StageId,
    /// 0 for the newest.
    pub(crate) attempt: i32,
    pub(crate) offset: i64,
    pub(crate) follow: bool,
}

impl TryFrom<v1::ReadStageLogsRequest> for Read {
    type Error = Error;

    fn try_from(request: v1::ReadStageLogsRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let stage = ids::required("stage_id", &request.stage_id, &mut violations);
        violations.check(request.attempt >= 0, "attempt", "must not be negative");
        violations.check(request.offset >= 0, "offset", "must not be negative");
        Ok(Read {
            stage: violations.finish(stage)?,
            attempt: request.attempt,
            offset: request.offset,
            follow: request.follow,
        })
    }
}

/// The credential to check.
pub(crate) fn credential(request: v1::CheckJobCredentialRequest) -> Result<SecretString, Error> {
    let mut violations = Violations::new();
    violations.length("job_credential", &request.job_credential, 1, LONGEST_CREDENTIAL);
    violations.into_result()?;
    Ok(SecretString::from(request.job_credential))
}

/// What a job of this kind may do, with its own design and its own state only.
pub(crate) fn permissions(kind: StageKind) -> Vec<String> {
    const VALIDATE: &[&str] = &["designs.design.export"];
    const PLAN: &[&str] = &[
        "designs.design.export",
        "terraform_state.state.read",
        "terraform_state.state.download",
        "terraform_state.lock.write",
    ];
    const APPLY: &[&str] = &[
        "designs.design.export",
        "terraform_state.state.read",
        "terraform_state.state.download",
        "terraform_state.lock.write",
        "terraform_state.state.write",
    ];
    // Takes no lock, and needs none.
    const DRIFT: &[&str] = &[
        "designs.design.export",
        "terraform_state.state.read",
        "terraform_state.state.download",
        "terraform_state.drift.write",
    ];
    let permissions = match kind {
        StageKind::Validate => VALIDATE,
        StageKind::Plan => PLAN,
        StageKind::Apply => APPLY,
        StageKind::Drift => DRIFT,
    };
    permissions.iter().map(|&permission| permission.to_owned()).collect()
}

/// What a stage does.
pub(crate) fn kind(kind: StageKind) -> v1::StageKind {
    match kind {
        StageKind::Validate => v1::StageKind::Validate,
        StageKind::Plan => v1::StageKind::Plan,
        StageKind::Apply => v1::StageKind::Apply,
        StageKind::Drift => v1::StageKind::Drift,
    }
}

/// A runner as it is shown.
pub(crate) fn runner(runner: Runner) -> v1::Runner {
    v1::Runner {
        id: runner.id.to_string(),
        name: runner.name.into(),
        terraform_version: runner.terraform_version.into(),
        created_at: Some(timestamp(runner.created_at)),
        seen_at: Some(timestamp(runner.seen_at)),
    }
}

/// What is left until a time, from another; nothing where it has passed.
pub(crate) fn left(until: OffsetDateTime, from: OffsetDateTime) -> prost_types::Duration {
    let left = (until - from).max(time::Duration::ZERO);
    prost_types::Duration {
        seconds: left.whole_seconds(),
        nanos: left.subsec_nanoseconds(),
    }
}

/// So many whole seconds.
pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}
