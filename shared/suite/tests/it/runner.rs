//! The runner's process in the suite: killed, frozen, cancelled, without a tool. Nothing is applied twice, and nothing
//! is reported that nobody knows.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use api::{
    audit::v1::{ListNotificationsRequest, NotificationKind, notification_service_client::NotificationServiceClient},
    designs::v1::{CreateDesignRequest, PublishDesignRequest},
    pipelines::v1::{
        CancelExecutionRequest, CreatePipelineRequest, Execution, ExecutionStatus, GetExecutionRequest,
        ReadStageLogsRequest, RunPipelineRequest, Stage, StageStatus, pipeline_service_client::PipelineServiceClient,
    },
    terraform_state::v1::{
        CreateDriftScheduleRequest, DriftRunOutcome, DriftSchedule, GetDriftScheduleRequest, ListStatesRequest,
        drift_schedule_service_client::DriftScheduleServiceClient, state_service_client::StateServiceClient,
    },
};
use suite::{demo::Terraform, processes::RUNNER};
use testkit::{Caller, guard::Guard};
use uuid::Uuid;

use crate::{
    house::{House, binary, eventually, free_ports},
    story::{Person, request_id},
    sweep::canvas,
};

/// Long enough for two leases, their margins and a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// A suite with short leases, a pipeline, and runners whose applies wait for a word.
struct Yard {
    house: House,
    owner: Person,
    pipeline: String,
    key: String,
    dir: tempfile::TempDir,
}

impl Yard {
    /// None where there is no Terraform.
    async fn open() -> Option<Yard> {
        if matches!(Terraform::found(), Terraform::Protocol) {
            eprintln!("SKIPPED: there is no terraform on PATH");
            return None;
        }
        let house = House::open_with(&[("BOARD3_LEASE_SECONDS", "10"), ("BOARD3_LEASE_MARGIN_SECONDS", "2")]).await;
        let owner = house.sign_up("ada").await;
        let create = CreateDesignRequest {
            canvas: Some(canvas(2)),
            ..crate::story::blank("a design that is applied")
        };
        let design = owner
            .designs(&house)
            .create_design(create)
            .await
            .unwrap()
            .into_inner()
            .design
            .unwrap();
        let publish = PublishDesignRequest {
            design_id: design.id.clone(),
            ..Default::default()
        };
        owner.designs(&house).publish_design(publish).await.unwrap();
        let create = CreatePipelineRequest {
            name: "applied".to_owned(),
            design_id: design.id,
            state_name: format!("yard/{}", Uuid::new_v4().simple()),
            ..Default::default()
        };
        let client = PipelineServiceClient::new(house.pipelines().with(&owner.access));
        let made = { client }
            .create_pipeline(create)
            .await
            .unwrap()
            .into_inner()
            .pipeline
            .unwrap();
        let key = house.api_key(&owner, &["pipelines.runner.work"]).await.secret;
        Some(Yard {
            house,
            owner,
            pipeline: made.id,
            key,
            dir: tempfile::tempdir().unwrap(),
        })
    }

    fn pipelines(&self) -> PipelineServiceClient<Caller> {
        PipelineServiceClient::new(self.house.pipelines().with(&self.owner.access))
    }

    /// A runner with this program for Terraform.
    fn runner(&self, name: &str, terraform: Option<PathBuf>) -> Guard {
        let mut command = Command::new(binary(RUNNER));
        let addresses = self.house.environment("audit").into_iter();
        command.envs(addresses.filter(|(name, _)| name.starts_with("BOARD3_")));
        command
            .env("BOARD3_RUNNER_NAME", name)
            .env("BOARD3_RUNNER_API_KEY", &self.key)
            .env("BOARD3_RUNNER_DIR", self.dir.path().join(name))
            .env("BOARD3_HTTP_LISTEN", format!("127.0.0.1:{}", free_ports(1)[0]));
        if let Some(terraform) = terraform {
            command.env("BOARD3_TERRAFORM", terraform);
        }
        Guard::spawn(&command, "TERM", None, &self.log(name)).unwrap()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// A Terraform whose first apply says that it began and waits until [`Yard::go`].
    fn waiting(&self) -> PathBuf {
        let (path, dir) = (self.dir.path().join("waiting-terraform"), self.dir.path().display());
        let script = format!(
            "#!/bin/sh\ntrap 'exit 1' INT\nif [ \"$1\" = apply ] && mkdir {dir}/applying 2>/dev/null; then\n\
             while [ ! -e {dir}/go ]; do sleep 0.05; done\nfi\nexec terraform \"$@\"\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn applying(&self) {
        let applying = self.dir.path().join("applying");
        eventually("an apply has begun", LONG, async || applying.exists().then_some(())).await;
    }

    fn go(&self) {
        fs::write(self.dir.path().join("go"), "").unwrap();
    }

    async fn run(&self) -> String {
        let run = RunPipelineRequest {
            pipeline_id: self.pipeline.clone(),
            request_id: request_id(),
            ..Default::default()
        };
        self.pipelines()
            .run_pipeline(run)
            .await
            .unwrap()
            .into_inner()
            .execution
            .unwrap()
            .id
    }

    async fn execution(&self, id: &str) -> Execution {
        let get = GetExecutionRequest {
            execution_id: id.to_owned(),
        };
        self.pipelines()
            .get_execution(get)
            .await
            .unwrap()
            .into_inner()
            .execution
            .unwrap()
    }

    /// Waits until an execution stands so.
    async fn ended(&self, id: &str, status: ExecutionStatus) -> Execution {
        eventually(&format!("the execution is {status:?}"), LONG, async || {
            let execution = self.execution(id).await;
            if execution.finished_at.is_some() {
                assert_eq!(execution.status(), status, "{execution:#?}");
            }
            (execution.status() == status).then_some(execution)
        })
        .await
    }

    /// The whole log of a stage, which must come to an end.
    async fn log_of(&self, stage: &Stage) -> String {
        let read = ReadStageLogsRequest {
            stage_id: stage.id.clone(),
            follow: true,
            ..Default::default()
        };
        let mut parts = self.pipelines().read_stage_logs(read).await.unwrap().into_inner();
        let mut log = Vec::new();
        while let Some(part) = parts.message().await.unwrap() {
            log.extend(part.content);
        }
        String::from_utf8(log).unwrap()
    }

    async fn notified(&self, kind: NotificationKind) {
        let client = NotificationServiceClient::new(self.house.audit().with(&self.owner.access));
        eventually("there is a notification", LONG, async || {
            let told = client
                .clone()
                .list_notifications(ListNotificationsRequest::default())
                .await
                .unwrap();
            told.into_inner()
                .notifications
                .iter()
                .any(|told| told.kind() == kind)
                .then_some(())
        })
        .await;
    }
}

fn stage<'a>(execution: &'a Execution, name: &str) -> &'a Stage {
    execution
        .stages
        .iter()
        .find(|stage| stage.name == name)
        .expect("the pipeline has it")
}

fn instant(time: Option<prost_types::Timestamp>) -> (i64, i32) {
    time.map(|time| (time.seconds, time.nanos)).expect("it is known when")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_killed_in_mid_apply_leaves_an_unknown_outcome_and_no_second_apply_before_the_fence() {
    let Some(yard) = Yard::open().await else { return };
    let first = yard.run().await;
    let doomed = yard.runner("doomed", Some(yard.waiting()));
    yard.applying().await;
    doomed.kill().await.unwrap();
    // A second run and a healthy runner: its apply waits for the fence of the first.
    let second = yard.run().await;
    let healthy = yard.runner("healthy", None);
    let unknown = yard.ended(&first, ExecutionStatus::OutcomeUnknown).await;
    let apply = stage(&unknown, "apply");
    assert_eq!(apply.status(), StageStatus::OutcomeUnknown);
    assert_eq!(apply.attempts.len(), 1, "an apply is tried once");
    assert_eq!(apply.attempts[0].runner_name, "doomed");
    assert!(unknown.status_detail.contains("apply"), "{}", unknown.status_detail);
    yard.log_of(apply).await;
    assert!(yard.log_of(stage(&unknown, "plan")).await.contains("Plan:"));
    yard.notified(NotificationKind::ExecutionOutcomeUnknown).await;

    let done = yard.ended(&second, ExecutionStatus::Succeeded).await;
    let (fence, begun) = (
        instant(apply.attempts[0].finished_at),
        instant(stage(&done, "apply").attempts[0].leased_at),
    );
    assert!(
        begun >= fence,
        "the second apply began at {begun:?}, the first one's fence passed at {fence:?}"
    );
    assert_eq!(
        yard.execution(&first).await.status(),
        ExecutionStatus::OutcomeUnknown,
        "it stays unknown"
    );
    healthy.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_frozen_past_its_lease_writes_nothing_when_it_goes_on() {
    let Some(yard) = Yard::open().await else { return };
    let id = yard.run().await;
    let runner = yard.runner("frozen", Some(yard.waiting()));
    yard.applying().await;
    runner.pause().await.unwrap();
    let unknown = yard.ended(&id, ExecutionStatus::OutcomeUnknown).await;
    runner.resume().await.unwrap();
    yard.go();
    eventually("the runner hears that its lease is lost", LONG, async || {
        let log = fs::read_to_string(yard.log("frozen")).unwrap_or_default();
        log.contains("LEASE_LOST").then_some(())
    })
    .await;
    // It goes on to work, and what it lost stays as it was.
    let next = yard.run().await;
    yard.ended(&next, ExecutionStatus::Succeeded).await;
    let after = yard.execution(&id).await;
    assert_eq!(after.stages, unknown.stages);
    assert_eq!(after.status(), ExecutionStatus::OutcomeUnknown);
    runner.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_apply_is_interrupted_and_reported() {
    let Some(yard) = Yard::open().await else { return };
    let id = yard.run().await;
    let runner = yard.runner("cancelled", Some(yard.waiting()));
    yard.applying().await;
    let cancel = CancelExecutionRequest {
        execution_id: id.clone(),
        request_id: request_id(),
    };
    let told = yard
        .pipelines()
        .cancel_execution(cancel)
        .await
        .unwrap()
        .into_inner()
        .execution
        .unwrap();
    assert_eq!(told.status(), ExecutionStatus::Cancelling);
    let ended = yard.ended(&id, ExecutionStatus::Cancelled).await;
    assert_eq!(stage(&ended, "apply").status(), StageStatus::Cancelled);
    runner.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terraform_a_stage_ends_tool_missing() {
    let Some(yard) = Yard::open().await else { return };
    let id = yard.run().await;
    let runner = yard.runner("bare", Some(yard.dir.path().join("no-such-terraform")));
    let failed = yard.ended(&id, ExecutionStatus::Failed).await;
    let validate = stage(&failed, "validate");
    assert_eq!(
        (validate.status(), validate.failure_reason.as_str()),
        (StageStatus::Failed, "TOOL_MISSING")
    );
    assert_eq!(stage(&failed, "apply").status(), StageStatus::Skipped);
    yard.notified(NotificationKind::ExecutionFailed).await;
    runner.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_has_the_state_checked_for_drift_and_its_lock_left_alone() {
    let Some(yard) = Yard::open().await else { return };
    let runner = yard.runner("checker", None);
    let applied = yard.run().await;
    yard.ended(&applied, ExecutionStatus::Succeeded).await;
    let states = yard.house.terraform_state().with(&yard.owner.access);
    let list = ListStatesRequest {
        name_prefix: "yard/".to_owned(),
        ..Default::default()
    };
    let states = { StateServiceClient::new(states) }.list_states(list).await.unwrap();
    let create = CreateDriftScheduleRequest {
        drift_schedule: Some(DriftSchedule {
            state_id: states.into_inner().states.remove(0).id,
            pipeline_id: yard.pipeline.clone(),
            cron: "0 0 1 1 *".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let schedules = yard.house.terraform_state().with(&yard.owner.access);
    let mut schedules = DriftScheduleServiceClient::new(schedules);
    let made = schedules.create_drift_schedule(create).await.unwrap().into_inner();
    let id = made.drift_schedule.unwrap().id;
    let admin = yard.house.database().admin().await;
    let locked = "select count(*) from terraform_state.lock_history";
    let before: i64 = admin.query_one(locked, &[]).await.unwrap().get(0);
    // A year is long: it is due now.
    let due = "update terraform_state.drift_schedules set due_at = now(), run_at = now(), run_before = now() + interval '1 h'";
    admin.batch_execute(due).await.unwrap();
    let run = eventually("the check has succeeded", LONG, async || {
        let get = GetDriftScheduleRequest {
            drift_schedule_id: id.clone(),
        };
        let schedule = schedules.clone().get_drift_schedule(get).await.unwrap().into_inner();
        let run = schedule.drift_schedule.unwrap().last_run?;
        assert!(run.reason.is_empty(), "{run:?}");
        (run.outcome() == DriftRunOutcome::Succeeded).then_some(run)
    })
    .await;
    let checked = yard.execution(&run.execution_id).await;
    let log = yard.log_of(stage(&checked, "drift")).await;
    assert!(log.contains("plan -refresh-only -input=false -lock=false"), "{log}");
    assert!(log.contains("0 resources have drifted"), "{log}");
    assert!(!log.contains("format_version"), "the plan is no part of the log: {log}");
    let checks = "select count(*) from terraform_state.drift_checks where not errored";
    let checks: i64 = admin.query_one(checks, &[]).await.unwrap().get(0);
    let after: i64 = admin.query_one(locked, &[]).await.unwrap().get(0);
    assert_eq!((checks, after), (1, before));
    runner.stop().await.unwrap();
}
