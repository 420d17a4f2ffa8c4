//! A pipelines service, people who run pipelines with it, and runners that the test plays itself.

use std::time::Duration;

use api::{
    events::v1::{Event, event::Payload},
    pipelines::v1::{
        AcquireRequest, AppendLogRequest, CancelExecutionRequest, CompleteRequest, CreatePipelineRequest, Execution,
        GetExecutionRequest, Lease, ReadStageLogsRequest, ReadStageLogsResponse, RegisterRequest, RenewRequest,
        RenewResponse, RunPipelineRequest, Stage, StageDefinition, StageKind, StageOutcome, StageStatus, StartRequest,
        StartResponse, pipeline_service_client::PipelineServiceClient, runner_service_client::RunnerServiceClient,
    },
};
use kit::ids::{OrgId, UserId};
use prost::Message;
use testkit::{Caller, Served};
use tokio_postgres::Client;
use tonic::{Request, Status, Streaming};
use tonic_types::StatusExt;
use uuid::Uuid;

pub(crate) struct Yard {
    pub(crate) served: Served,
    /// The superuser's connection, in the service's schema.
    pub(crate) admin: Client,
    pub(crate) org: OrgId,
    pub(crate) people: PipelineServiceClient<Caller>,
}

impl Yard {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With leases of a second, taken away a second later.
    pub(crate) async fn hasty() -> Self {
        Self::with(&[("BOARD3_LEASE_SECONDS", "1"), ("BOARD3_LEASE_MARGIN_SECONDS", "1")]).await
    }

    pub(crate) async fn with(env: &[(&str, &str)]) -> Self {
        let served = testkit::serve_with(pipelines::SERVICE, env).await;
        // A service keeps to itself what a panic says; a test tells why it failed.
        drop(std::panic::take_hook());
        let admin = served.database.admin().await;
        admin.batch_execute("set search_path = pipelines").await.unwrap();
        let org = OrgId::new();
        let people = PipelineServiceClient::new(served.caller(org, &["pipelines.*.*"]));
        Yard {
            served,
            admin,
            org,
            people,
        }
    }

    /// A pipeline of these stages on a state, with a published design of its own.
    pub(crate) async fn pipeline(&self, state: &str, stages: Vec<StageDefinition>) -> String {
        let design = Uuid::now_v7();
        let insert = format!(
            "insert into designs (org_id, design_id, name, latest_version, deleted, revision)
             values ('{}', '{design}', 'drawn', 3, false, 1)",
            self.org
        );
        self.admin.batch_execute(&insert).await.unwrap();
        let request = CreatePipelineRequest {
            name: format!("p {design}"),
            design_id: design.to_string(),
            state_name: state.to_owned(),
            stages,
            ..Default::default()
        };
        let made = self.people.clone().create_pipeline(request).await.unwrap();
        made.into_inner().pipeline.unwrap().id
    }

    pub(crate) async fn run(&self, pipeline: &str) -> Execution {
        let request = RunPipelineRequest {
            pipeline_id: pipeline.to_owned(),
            ..Default::default()
        };
        let run = self.people.clone().run_pipeline(request).await.unwrap();
        run.into_inner().execution.unwrap()
    }

    /// An execution of validate, plan and apply on a state.
    pub(crate) async fn run_on(&self, state: &str) -> Execution {
        let pipeline = self.pipeline(state, Vec::new()).await;
        self.run(&pipeline).await
    }

    pub(crate) async fn execution(&self, id: &str) -> Execution {
        let request = GetExecutionRequest {
            execution_id: id.to_owned(),
        };
        let found = self.people.clone().get_execution(request).await.unwrap();
        found.into_inner().execution.unwrap()
    }

    pub(crate) async fn stage(&self, execution: &str, name: &str) -> Stage {
        let stages = self.execution(execution).await.stages;
        stages.into_iter().find(|stage| stage.name == name).unwrap()
    }

    /// Waits until a stage stands so.
    pub(crate) async fn stands(&self, execution: &str, name: &str, status: StageStatus) -> Stage {
        wait(&format!("{name} to be {status:?}"), async || {
            self.stage(execution, name).await.status() == status
        })
        .await;
        self.stage(execution, name).await
    }

    pub(crate) async fn cancel(&self, execution: &str) -> Result<Execution, Status> {
        let request = CancelExecutionRequest {
            execution_id: execution.to_owned(),
            ..Default::default()
        };
        let cancelled = self.people.clone().cancel_execution(request).await?;
        Ok(cancelled.into_inner().execution.unwrap())
    }

    /// A runner with a caller of its own.
    pub(crate) async fn runner(&self, name: &str) -> Runner {
        self.runner_of(UserId::new(), name).await
    }

    pub(crate) async fn runner_of(&self, user: UserId, name: &str) -> Runner {
        let caller = self.served.caller_as(self.org, user, &["pipelines.runner.*"]);
        let mut calls = RunnerServiceClient::new(caller);
        let request = RegisterRequest {
            name: name.to_owned(),
            terraform_version: "1.11.4".to_owned(),
            ..Default::default()
        };
        let id = calls.register(request).await.unwrap().into_inner().runner.unwrap().id;
        Runner { calls, id }
    }

    /// The stream of a log.
    pub(crate) async fn read(&self, request: ReadStageLogsRequest) -> Result<Streaming<ReadStageLogsResponse>, Status> {
        Ok(self.people.clone().read_stage_logs(request).await?.into_inner())
    }

    /// One number that the database answers.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.admin.query_one(query, &[]).await.unwrap().get(0)
    }

    /// What the outbox holds so far.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let rows = self.admin.query("select envelope from outbox order by id", &[]).await;
        let rows = rows.unwrap();
        let events = rows.iter().map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap());
        events.collect()
    }

    /// The jobs of which peers were told that they have ended.
    pub(crate) async fn ended_jobs(&self) -> Vec<String> {
        let events = self.events().await.into_iter();
        let ended = events.filter_map(|event| match event.payload {
            Some(Payload::JobEnded(ended)) => Some(ended.job_id),
            _ => None,
        });
        ended.collect()
    }
}

/// A runner that the test plays.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) calls: RunnerServiceClient<Caller>,
    pub(crate) id: String,
}

impl Runner {
    /// A lease, if one comes within so many milliseconds.
    pub(crate) async fn acquire(&self, wait: u64) -> Option<Lease> {
        let mut request = Request::new(AcquireRequest {
            runner_id: self.id.clone(),
            wait: Some(Duration::from_millis(wait).try_into().unwrap()),
        });
        request.set_timeout(Duration::from_secs(30));
        self.calls.clone().acquire(request).await.unwrap().into_inner().lease
    }

    /// A lease that must come.
    pub(crate) async fn take(&self) -> Lease {
        self.acquire(15_000).await.expect("a stage is ready")
    }

    pub(crate) async fn start(&self, lease: &Lease) -> Result<StartResponse, Status> {
        let request = StartRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            ..Default::default()
        };
        Ok(self.calls.clone().start(request).await?.into_inner())
    }

    pub(crate) async fn renew(&self, lease: &Lease) -> Result<RenewResponse, Status> {
        let request = RenewRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
        };
        Ok(self.calls.clone().renew(request).await?.into_inner())
    }

    pub(crate) async fn append(&self, lease: &Lease, offset: i64, content: &[u8]) -> Result<i64, Status> {
        let request = AppendLogRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            offset,
            content: content.to_vec(),
        };
        Ok(self.calls.clone().append_log(request).await?.into_inner().log_offset)
    }

    pub(crate) async fn complete(&self, request: CompleteRequest) -> Result<(), Status> {
        self.calls.clone().complete(request).await.map(drop)
    }

    /// Does a stage as it should be done, without a log.
    pub(crate) async fn work(&self, lease: &Lease) -> StartResponse {
        let started = self.start(lease).await.unwrap();
        self.complete(done(lease)).await.unwrap();
        started
    }

    /// Does the stages before the apply of the only execution, and takes that.
    pub(crate) async fn up_to_apply(&self) -> Lease {
        loop {
            let lease = self.take().await;
            if lease.kind() == StageKind::Apply {
                return lease;
            }
            self.work(&lease).await;
        }
    }
}

/// The report of success, with a plan file where one belongs to it.
pub(crate) fn done(lease: &Lease) -> CompleteRequest {
    let plan = match lease.kind() {
        StageKind::Plan => b"the plan file".to_vec(),
        _ => Vec::new(),
    };
    CompleteRequest {
        plan,
        ..report(lease, StageOutcome::Succeeded)
    }
}

pub(crate) fn report(lease: &Lease, outcome: StageOutcome) -> CompleteRequest {
    CompleteRequest {
        lease_id: lease.id.clone(),
        generation: lease.generation,
        outcome: outcome.into(),
        ..Default::default()
    }
}

pub(crate) fn only(kind: StageKind) -> Vec<StageDefinition> {
    vec![StageDefinition {
        name: "only".to_owned(),
        kind: kind.into(),
        needs: Vec::new(),
    }]
}

/// The reason of a failure.
pub(crate) fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    let status = answer.unwrap_err();
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("{status:?} carries ErrorInfo")).reason
}

/// One value of a failure's metadata.
pub(crate) fn metadata(status: &Status, key: &str) -> String {
    status.get_details_error_info().unwrap().metadata[key].clone()
}

/// The names of the violated fields.
pub(crate) fn violated<T: std::fmt::Debug>(answer: Result<T, Status>) -> Vec<String> {
    let details = answer.unwrap_err().get_details_bad_request().unwrap();
    let violations = details.field_violations.into_iter();
    violations.map(|violation| violation.field).collect()
}

/// Asks again until it holds, for at most 30 s.
pub(crate) async fn wait(what: &str, holds: impl AsyncFn() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(30), asked).await;
    assert!(held.is_ok(), "waited in vain for {what}");
}
