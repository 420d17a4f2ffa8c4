//! A pipelines service, people who run pipelines, runners that work, and what other services tell.

use std::{collections::BTreeMap, time::Duration};

use api::{
    events::v1::{DesignChanged, DriftChecked, Event, event::Payload},
    pipelines::v1::{
        AcquireRequest, CancelExecutionRequest, CompleteRequest, CreatePipelineRequest, Execution, ExecutionStatus,
        GetExecutionRequest, Lease, ListExecutionsRequest, ListExecutionsResponse, Pipeline, RegisterRequest,
        RunPipelineRequest, Runner, StageOutcome, StartRequest, pipeline_service_client::PipelineServiceClient,
        runner_service_client::RunnerServiceClient,
    },
};
use kit::ids::{OrgId, UserId};
use prost::Message;
use testkit::{Caller, Served};
use tokio_postgres::Client;
use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;

pub(crate) struct World {
    pub(crate) served: Served,
    /// The superuser's connection, in the service's schema.
    pub(crate) admin: Client,
    pub(crate) org: OrgId,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With more environment.
    pub(crate) async fn with(env: &[(&str, &str)]) -> Self {
        let served = testkit::serve_with(pipelines::SERVICE, env).await;
        // A service keeps to itself what a panic says; a test tells why it failed.
        drop(std::panic::take_hook());
        let admin = served.database.admin().await;
        admin.batch_execute("set search_path = pipelines").await.unwrap();
        World {
            served,
            admin,
            org: OrgId::new(),
        }
    }

    /// A new user who may do everything with pipelines.
    pub(crate) fn operator(&self) -> Operator {
        self.operator_of(self.org)
    }

    pub(crate) fn operator_of(&self, org: OrgId) -> Operator {
        let id = UserId::new();
        let caller = self.served.caller_as(org, id, &["pipelines.*.*"]);
        Operator {
            pipelines: PipelineServiceClient::new(caller.clone()),
            runners: RunnerServiceClient::new(caller),
            id,
        }
    }

    /// Tells as designs that a design stands so: its newest version, and its revision.
    pub(crate) fn tell_design(&self, org: OrgId, id: Uuid, latest_version: i32, revision: i64) {
        let changed = DesignChanged {
            design_id: id.to_string(),
            revision,
            deleted: false,
            name: "network".to_owned(),
            latest_version,
        };
        self.served
            .office
            .tell_as("designs", org, Payload::DesignChanged(changed));
    }

    /// A design of the organization with one version, as designs tells of it.
    pub(crate) fn published(&self) -> Uuid {
        let id = Uuid::now_v7();
        self.tell_design(self.org, id, 1, 2);
        id
    }

    /// Tells as terraform-state that so many resources of a design's state `prod` have drifted; answers the event's id.
    pub(crate) fn tell_drift(&self, org: OrgId, checked: DriftChecked, chain_depth: u32) -> String {
        let event_id = Uuid::now_v7().to_string();
        let event = Event {
            event_id: event_id.clone(),
            organization_id: org.to_string(),
            action: "terraform_state.DetectDrift".to_owned(),
            chain_depth,
            request_id: "the check".to_owned(),
            payload: Some(Payload::DriftChecked(checked)),
            ..Event::default()
        };
        self.served.office.tell_event("terraform_state", event);
        event_id
    }

    /// One number that the database answers.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.admin.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Everything in the outbox so far.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let query = "select envelope from outbox order by id";
        let rows = self.admin.query(query, &[]).await.unwrap();
        let events = rows.iter().map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap());
        events.collect()
    }

    /// Where peers were told that an execution stands, in order, with the revisions.
    pub(crate) async fn told(&self, execution: &str) -> Vec<(String, i64)> {
        let events = self.events().await.into_iter();
        let told = events.filter_map(|event| match event.payload {
            Some(Payload::ExecutionChanged(changed)) if changed.execution_id == execution => {
                Some((changed.status, changed.revision))
            }
            _ => None,
        });
        told.collect()
    }

    /// The audited actions so far, and what each was about.
    pub(crate) async fn audited(&self) -> Vec<(String, String)> {
        let events = self.events().await.into_iter().filter(|event| event.audited);
        events
            .map(|event| (event.action, event.resource.unwrap_or_default().id))
            .collect()
    }

    /// Waits until a consumer has gone past `told` events of its source.
    pub(crate) async fn applied(&self, consumer: &str, told: i64) {
        let cursor = format!("select coalesce(max(position), 0) from cursors where consumer = '{consumer}'");
        wait(&format!("{consumer} at {told}"), async || {
            self.number(&cursor).await >= told
        })
        .await;
    }

    /// How many rows each table has, and a hash of all of them: equal where nothing was written.
    pub(crate) async fn rows(&self) -> BTreeMap<String, String> {
        let mut rows = BTreeMap::new();
        for table in [
            "designs",
            "pipelines",
            "pipeline_executions",
            "pipeline_stages",
            "stage_attempts",
            "stage_logs",
            "runners",
            "requests",
        ] {
            let query = format!(
                "select count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') from {table} t"
            );
            let row = self.admin.query_one(&query, &[]).await.unwrap();
            rows.insert(table.to_owned(), row.get(0));
        }
        rows
    }
}

/// Somebody with clients of both services.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) pipelines: PipelineServiceClient<Caller>,
    pub(crate) runners: RunnerServiceClient<Caller>,
    pub(crate) id: UserId,
}

impl Operator {
    pub(crate) async fn make(&mut self, request: CreatePipelineRequest) -> Result<Pipeline, Status> {
        Ok(self
            .pipelines
            .create_pipeline(request)
            .await?
            .into_inner()
            .pipeline
            .unwrap())
    }

    pub(crate) async fn run(&mut self, pipeline: &Pipeline, version: i32) -> Result<Execution, Status> {
        let request = RunPipelineRequest {
            pipeline_id: pipeline.id.clone(),
            design_version: version,
            ..Default::default()
        };
        Ok(self
            .pipelines
            .run_pipeline(request)
            .await?
            .into_inner()
            .execution
            .unwrap())
    }

    pub(crate) async fn execution(&mut self, id: &str) -> Result<Execution, Status> {
        let request = GetExecutionRequest {
            execution_id: id.to_owned(),
        };
        Ok(self
            .pipelines
            .get_execution(request)
            .await?
            .into_inner()
            .execution
            .unwrap())
    }

    pub(crate) async fn cancel(&mut self, id: &str) -> Result<Execution, Status> {
        let request = CancelExecutionRequest {
            execution_id: id.to_owned(),
            ..Default::default()
        };
        Ok(self
            .pipelines
            .cancel_execution(request)
            .await?
            .into_inner()
            .execution
            .unwrap())
    }

    pub(crate) async fn list(&mut self, request: ListExecutionsRequest) -> Result<ListExecutionsResponse, Status> {
        Ok(self.pipelines.list_executions(request).await?.into_inner())
    }

    pub(crate) async fn register(&mut self, name: &str) -> Runner {
        let request = RegisterRequest {
            name: name.to_owned(),
            terraform_version: "1.11.4".to_owned(),
            ..Default::default()
        };
        self.runners
            .register(request)
            .await
            .unwrap()
            .into_inner()
            .runner
            .unwrap()
    }

    /// The oldest stage that is ready, without waiting.
    pub(crate) async fn acquire(&mut self, runner: &Runner) -> Option<Lease> {
        let request = AcquireRequest {
            runner_id: runner.id.clone(),
            wait: None,
        };
        self.runners.acquire(request).await.unwrap().into_inner().lease
    }

    pub(crate) async fn start(&mut self, lease: &Lease) {
        let request = StartRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            ..Default::default()
        };
        self.runners.start(request).await.unwrap();
    }

    /// Reports the end of a lease without a log; a plan that succeeded comes with its file.
    pub(crate) async fn complete(&mut self, lease: &Lease, outcome: StageOutcome) {
        let planned = lease.stage_name.starts_with("plan") && outcome == StageOutcome::Succeeded;
        let failed = outcome == StageOutcome::Failed;
        let request = CompleteRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            outcome: outcome.into(),
            failure_reason: if failed { "TERRAFORM_FAILED" } else { "" }.to_owned(),
            plan: if planned { b"the plan".to_vec() } else { Vec::new() },
            ..Default::default()
        };
        self.runners.complete(request).await.unwrap();
    }

    /// Takes the next stage, works on it, and reports.
    pub(crate) async fn work(&mut self, runner: &Runner, outcome: StageOutcome) -> Lease {
        let lease = self.acquire(runner).await.expect("a stage is ready");
        self.start(&lease).await;
        self.complete(&lease, outcome).await;
        lease
    }
}

/// A pipeline of the standard stages on a design's state `prod`.
pub(crate) fn new(name: &str, design: Uuid) -> CreatePipelineRequest {
    CreatePipelineRequest {
        name: name.to_owned(),
        design_id: design.to_string(),
        state_name: "prod".to_owned(),
        ..Default::default()
    }
}

/// So many resources of a design's state `prod` have drifted.
pub(crate) fn drifted(design: Uuid, drifted_resources: i32) -> DriftChecked {
    DriftChecked {
        check_id: Uuid::now_v7().to_string(),
        state_id: Uuid::now_v7().to_string(),
        state_name: "prod".to_owned(),
        design_id: design.to_string(),
        drifted_resources,
        ..DriftChecked::default()
    }
}

/// Where the stages of an execution stand.
pub(crate) fn stages(execution: &Execution) -> Vec<String> {
    let stages = execution.stages.iter();
    stages
        .map(|stage| {
            let status = stage.status().as_str_name().trim_start_matches("STAGE_STATUS_");
            format!("{} {status}", stage.name)
        })
        .collect()
}

/// Where an execution stands, and why.
pub(crate) fn standing(execution: &Execution) -> (ExecutionStatus, &str) {
    (execution.status(), &execution.status_detail)
}

/// The reason of a failure, with the name of each violated field.
pub(crate) fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> (String, Vec<String>) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("{status:?} carries ErrorInfo"));
    let violations = details
        .bad_request()
        .into_iter()
        .flat_map(|request| &request.field_violations);
    (
        info.reason.clone(),
        violations.map(|violation| violation.field.clone()).collect(),
    )
}

/// One value of a failure's metadata.
pub(crate) fn metadata<T: std::fmt::Debug>(answer: Result<T, Status>, key: &str) -> String {
    answer.unwrap_err().get_details_error_info().unwrap().metadata[key].clone()
}

/// Asks again until it holds, for at most 20 s.
pub(crate) async fn wait(what: &str, holds: impl AsyncFn() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(20), asked).await;
    assert!(held.is_ok(), "waited in vain for {what}");
}
