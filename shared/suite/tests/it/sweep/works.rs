//! What a tenant of the sweep has beyond designs: a state, a pipeline that ran, a runner, a lease, a notification.

use std::time::{Duration, Instant};

use api::{
    pipelines::v1::{
        AcquireRequest, CreatePipelineRequest, Execution, Lease, RegisterRequest, RunPipelineRequest, StageDefinition,
        StageKind, StartRequest, pipeline_service_client::PipelineServiceClient,
        runner_service_client::RunnerServiceClient,
    },
    terraform_state::v1::{
        CreateDriftRuleRequest, CreateDriftScheduleRequest, CreateStateRequest, DeleteStateRequest, DetectDriftRequest,
        DriftRule, DriftSchedule, DriftSeverity, ListDriftLogsRequest, Lock, LockStateRequest, State,
        UnlockStateRequest, UploadStateRequest, drift_schedule_service_client::DriftScheduleServiceClient,
        drift_service_client::DriftServiceClient, lock_service_client::LockServiceClient,
        state_service_client::StateServiceClient,
    },
};
use futures_util::stream;
use serde_json::json;
use testkit::Caller;
use tokio_postgres::Client;
use uuid::Uuid;

use super::world::{Tenant, World};
use crate::{
    house::{House, eventually},
    story::{Person, request_id},
};

/// What runners need; the tenant's runner is registered by the key that has just this.
pub(super) const RUNNER: &[&str] = &["pipelines.runner.work"];

/// How many stages the tenant's pipeline has.
const STAGES: usize = 5;

/// One of each.
pub(crate) struct Works {
    /// Written once, locked.
    pub(crate) state: State,
    pub(crate) lock_id: String,
    /// Of a check that found something.
    pub(crate) check_id: String,
    /// What it found.
    pub(crate) drift_log: String,
    pub(crate) drift_rule: String,
    pub(crate) drift_schedule: String,
    pub(crate) pipeline: String,
    pub(crate) execution: String,
    /// The execution's first stage, which the lease is of.
    pub(crate) stage: String,
    pub(crate) runner: String,
    pub(crate) lease: Lease,
    pub(crate) notification: String,
    /// The runner's.
    pub(super) key: String,
}

/// One person's clients.
struct Desk<'a> {
    house: &'a House,
    owner: &'a Person,
}

impl Works {
    pub(super) async fn new(house: &House, admin: &Client, owner: &Person, design: &str) -> Works {
        let desk = Desk { house, owner };
        let state = desk.create_state("written", design).await;
        let lock_id = lock(house, &owner.access, &state.id).await;
        desk.upload(&state.id, &lock_id, 1).await;
        let check_id = desk.detect(&state.id, "terraform_data.thing_0").await;
        let drift_log = desk.drift_log(&check_id).await;
        let drift_rule = desk.create_drift_rule(&state.id).await;

        let pipeline = desk.create_pipeline(design, STAGES).await;
        let drift_schedule = desk.create_drift_schedule(&state.id, &pipeline).await.id;
        let execution = desk.run(&pipeline).await;
        let key = house.api_key(owner, RUNNER).await.secret;
        let runner = register(house, &key).await;
        let lease = acquire(house, &key, &runner, &execution.id).await;
        let notification = eventually("drift is notified of", Duration::from_secs(20), async || {
            let sql = "select id::text from audit.notifications where org_id = $1::text::uuid limit 1";
            let row = admin
                .query_opt(sql, &[&owner.org])
                .await
                .expect("an administrator sees everything");
            row.map(|row| row.get::<_, String>(0))
        });
        Works {
            lock_id,
            check_id,
            drift_log,
            drift_rule,
            drift_schedule,
            pipeline,
            stage: lease.stage_id.clone(),
            execution: execution.id,
            runner,
            lease,
            notification: notification.await,
            key,
            state,
        }
    }
}

impl Desk<'_> {
    fn states(&self) -> StateServiceClient<Caller> {
        StateServiceClient::new(self.house.terraform_state().with(&self.owner.access))
    }

    fn pipelines(&self) -> PipelineServiceClient<Caller> {
        PipelineServiceClient::new(self.house.pipelines().with(&self.owner.access))
    }

    async fn create_state(&self, what: &str, design: &str) -> State {
        let request = CreateStateRequest {
            name: format!("sweep/{}/{}", what.replace(' ', "-"), Uuid::new_v4().simple()),
            design_id: design.to_owned(),
            request_id: request_id(),
        };
        let made = self.states().create_state(request).await.expect("CreateState");
        made.into_inner().state.expect("CreateState answers the state")
    }

    async fn upload(&self, state: &str, lock_id: &str, serial: u64) {
        self.upload_content(state, lock_id, body(serial)).await;
    }

    async fn upload_content(&self, state: &str, lock_id: &str, content: Vec<u8>) {
        let request = UploadStateRequest {
            state_id: state.to_owned(),
            lock_id: lock_id.to_owned(),
            content,
            ..Default::default()
        };
        self.states()
            .upload_state(stream::iter([request]))
            .await
            .expect("UploadState");
    }

    fn drifts(&self) -> DriftServiceClient<Caller> {
        DriftServiceClient::new(self.house.terraform_state().with(&self.owner.access))
    }

    /// What a check found.
    async fn drift_log(&self, check: &str) -> String {
        let request = ListDriftLogsRequest {
            check_id: check.to_owned(),
            ..Default::default()
        };
        let listed = self.drifts().list_drift_logs(request).await.expect("ListDriftLogs");
        listed.into_inner().drift_logs.remove(0).id
    }

    /// A rule that fits nothing.
    async fn create_drift_rule(&self, state: &str) -> String {
        let request = CreateDriftRuleRequest {
            drift_rule: Some(DriftRule {
                state_id: state.to_owned(),
                path: "nothing".to_owned(),
                severity: DriftSeverity::Info.into(),
                reason: "swept".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let made = self.drifts().create_drift_rule(request).await.expect("CreateDriftRule");
        made.into_inner()
            .drift_rule
            .expect("CreateDriftRule answers the rule")
            .id
    }

    async fn create_drift_schedule(&self, state: &str, pipeline: &str) -> DriftSchedule {
        let request = CreateDriftScheduleRequest {
            drift_schedule: Some(yearly(state, pipeline)),
            ..Default::default()
        };
        let schedules = self.house.terraform_state().with(&self.owner.access);
        let made = DriftScheduleServiceClient::new(schedules)
            .create_drift_schedule(request)
            .await;
        let made = made.expect("CreateDriftSchedule").into_inner().drift_schedule;
        made.expect("CreateDriftSchedule answers the schedule")
    }

    async fn detect(&self, state: &str, address: &str) -> String {
        let request = DetectDriftRequest {
            state_id: state.to_owned(),
            plan_json: plan(address),
            ..Default::default()
        };
        let found = self
            .drifts()
            .detect_drift(stream::iter([request]))
            .await
            .expect("DetectDrift");
        found.into_inner().check_id
    }

    async fn create_pipeline(&self, design: &str, stages: usize) -> String {
        let stage = |n: usize| StageDefinition {
            name: format!("check-{n}"),
            kind: StageKind::Validate.into(),
            needs: Vec::new(),
        };
        let request = CreatePipelineRequest {
            name: format!("a pipeline of the sweep {}", Uuid::new_v4().simple()),
            design_id: design.to_owned(),
            state_name: "sweep/never".to_owned(),
            stages: (0..stages).map(stage).collect(),
            ..Default::default()
        };
        let made = self.pipelines().create_pipeline(request).await.expect("CreatePipeline");
        made.into_inner()
            .pipeline
            .expect("CreatePipeline answers the pipeline")
            .id
    }

    async fn run(&self, pipeline: &str) -> Execution {
        let request = RunPipelineRequest {
            pipeline_id: pipeline.to_owned(),
            design_version: 1,
            request_id: request_id(),
        };
        let made = self.pipelines().run_pipeline(request).await.expect("RunPipeline");
        made.into_inner().execution.expect("RunPipeline answers the execution")
    }
}

impl World {
    fn desk<'a>(&'a self, tenant: &'a Tenant) -> Desk<'a> {
        Desk {
            house: &self.house,
            owner: &tenant.owner,
        }
    }

    /// A new state without a version.
    pub(crate) async fn add_state(&self, tenant: &Tenant, what: &str) -> State {
        self.desk(tenant).create_state(what, &tenant.design.id).await
    }

    /// A new state with two versions, and nobody's.
    pub(crate) async fn add_written_state(&self, tenant: &Tenant) -> State {
        let state = self.add_state(tenant, "twice").await;
        for serial in 1..=2 {
            self.desk(tenant).upload(&state.id, "", serial).await;
        }
        state
    }

    /// A new state that is deleted.
    pub(crate) async fn add_deleted_state(&self, tenant: &Tenant) -> State {
        let state = self.add_state(tenant, "deleted").await;
        let request = DeleteStateRequest {
            state_id: state.id.clone(),
            ..Default::default()
        };
        let mut states = self.desk(tenant).states();
        states.delete_state(request).await.expect("DeleteState");
        state
    }

    /// A new state with four resources.
    pub(crate) async fn add_resources(&self, tenant: &Tenant) {
        let state = self.add_state(tenant, "resources").await;
        let resource = |n: u32| {
            json!({"mode": "managed", "type": "terraform_data", "name": format!("swept_{n}"),
                "provider": "provider[\"terraform.io/builtin/terraform\"]", "instances": [{"attributes": {"id": "1"}}]})
        };
        let resources: Vec<_> = (0..4).map(resource).collect();
        let content = json!({"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "swept", "outputs": {},
            "resources": resources, "check_results": null});
        let content = content.to_string().into_bytes();
        self.desk(tenant).upload_content(&state.id, "", content).await;
    }

    /// A new state and the id of its lock, which the key that has just the right to lock holds.
    pub(crate) async fn add_locked_state(&self, tenant: &Tenant) -> (State, String) {
        let state = self.add_state(tenant, "locked").await;
        let key = self.key(tenant, &["terraform_state.lock.write"]).await;
        let lock = lock(&self.house, &key, &state.id).await;
        (state, lock)
    }

    /// A lock that was taken and given back.
    pub(crate) async fn add_past_lock(&self, tenant: &Tenant) {
        let state = self.add_state(tenant, "unlocked").await;
        let key = self.key(tenant, &["terraform_state.lock.write"]).await;
        let request = UnlockStateRequest {
            state_id: state.id.clone(),
            lock_id: lock(&self.house, &key, &state.id).await,
            request_id: request_id(),
        };
        LockServiceClient::new(self.house.terraform_state().with(&key))
            .unlock_state(request)
            .await
            .expect("UnlockState");
    }

    /// Another version of the tenant's state.
    pub(crate) async fn add_version(&self, tenant: &Tenant, serial: u64) {
        let works = &tenant.works;
        self.desk(tenant).upload(&works.state.id, &works.lock_id, serial).await;
    }

    /// Another check of the tenant's state that finds something.
    pub(crate) async fn add_drift(&self, tenant: &Tenant) -> String {
        let address = format!("terraform_data.thing_{}", Uuid::new_v4().simple());
        self.desk(tenant).detect(&tenant.works.state.id, &address).await
    }

    /// What a check of a state of its own has found.
    pub(crate) async fn add_drift_log(&self, tenant: &Tenant) -> String {
        let state = self.add_state(tenant, "drifting").await;
        let check = self.desk(tenant).detect(&state.id, "terraform_data.thing").await;
        self.desk(tenant).drift_log(&check).await
    }

    /// A new rule.
    pub(crate) async fn add_drift_rule(&self, tenant: &Tenant) -> String {
        self.desk(tenant).create_drift_rule(&tenant.works.state.id).await
    }

    /// A new schedule.
    pub(crate) async fn add_drift_schedule(&self, tenant: &Tenant) -> DriftSchedule {
        let works = &tenant.works;
        self.desk(tenant)
            .create_drift_schedule(&works.state.id, &works.pipeline)
            .await
    }

    /// Many new schedules.
    pub(crate) async fn add_drift_schedules(&self, tenant: &Tenant, count: usize) {
        for _ in 0..count {
            self.add_drift_schedule(tenant).await;
        }
    }

    /// A notification of its own.
    pub(crate) async fn add_notification(&self, tenant: &Tenant) -> String {
        let state = self.add_state(tenant, "drifting").await;
        self.desk(tenant).detect(&state.id, "terraform_data.thing_0").await;
        let deadline = Instant::now() + Duration::from_secs(20);
        let sql = "select id::text from audit.notifications where org_id = $1::text::uuid and resource_id = $2";
        loop {
            let row = self.admin.query_opt(sql, &[&tenant.owner.org, &state.id]).await;
            if let Some(row) = row.expect("an administrator sees everything") {
                return row.get(0);
            }
            assert!(Instant::now() < deadline, "nobody is notified of drift");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A new pipeline of one stage.
    pub(crate) async fn add_pipeline(&self, tenant: &Tenant) -> String {
        self.desk(tenant).create_pipeline(&tenant.design.id, 1).await
    }

    /// A new execution of the tenant's pipeline.
    pub(crate) async fn add_execution(&self, tenant: &Tenant) -> Execution {
        self.desk(tenant).run(&tenant.works.pipeline).await
    }

    /// A lease of a stage of its own.
    pub(crate) async fn add_lease(&self, tenant: &Tenant) -> Lease {
        let pipeline = self.add_pipeline(tenant).await;
        let execution = self.desk(tenant).run(&pipeline).await;
        acquire(&self.house, &tenant.works.key, &tenant.works.runner, &execution.id).await
    }

    /// A lease whose work has begun.
    pub(crate) async fn add_started_lease(&self, tenant: &Tenant) -> Lease {
        let lease = self.add_lease(tenant).await;
        let request = StartRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            request_id: request_id(),
        };
        runners(&self.house, &tenant.works.key)
            .start(request)
            .await
            .expect("Start");
        lease
    }

    /// A new runner.
    pub(crate) async fn add_runner(&self, tenant: &Tenant) -> String {
        register(&self.house, &tenant.works.key).await
    }
}

async fn lock(house: &House, credential: &str, state: &str) -> String {
    let id = Uuid::new_v4().to_string();
    let request = LockStateRequest {
        state_id: state.to_owned(),
        lock: Some(Lock {
            id: id.clone(),
            operation: "sweep".to_owned(),
            ..Lock::default()
        }),
        request_id: request_id(),
        ..Default::default()
    };
    let mut client = LockServiceClient::new(house.terraform_state().with(credential));
    client.lock_state(request).await.expect("LockState");
    id
}

fn runners(house: &House, key: &str) -> RunnerServiceClient<Caller> {
    RunnerServiceClient::new(house.pipelines().with(key))
}

async fn register(house: &House, key: &str) -> String {
    let request = RegisterRequest {
        name: format!("sweeper-{}", Uuid::new_v4().simple()),
        ..Default::default()
    };
    let made = runners(house, key).register(request).await.expect("Register");
    made.into_inner().runner.expect("Register answers the runner").id
}

/// Takes stages until one of this execution is among them.
async fn acquire(house: &House, key: &str, runner: &str, execution: &str) -> Lease {
    for _ in 0..1_000 {
        let request = AcquireRequest {
            runner_id: runner.to_owned(),
            wait: None,
        };
        let taken = runners(house, key)
            .acquire(request)
            .await
            .expect("Acquire")
            .into_inner()
            .lease;
        let lease = taken.unwrap_or_else(|| panic!("no stage of {execution} is ready"));
        if lease.execution_id == execution {
            return lease;
        }
    }
    panic!("{execution} is not among the first thousand")
}

/// A state that Terraform could have written.
pub(crate) fn body(serial: u64) -> Vec<u8> {
    json!({"version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": "swept", "outputs": {},
        "resources": [], "check_results": null})
    .to_string()
    .into_bytes()
}

/// A plan in which one resource has drifted, and four have not.
pub(crate) fn plan(address: &str) -> Vec<u8> {
    let (kind, name) = address.split_once('.').expect("an address has a type and a name");
    let entry = |name: &str, action: &str, before: &str, after: &str| {
        json!({"address": format!("{kind}.{name}"), "mode": "managed", "type": kind, "name": name,
            "provider_name": "terraform.io/builtin/terraform",
            "change": {"actions": [action], "before": {"input": before}, "after": {"input": after}, "after_unknown": {},
                "before_sensitive": {}, "after_sensitive": {}}})
    };
    let mut changes = vec![entry(name, "update", "b", "a")];
    changes.extend((1..5).map(|n| entry(&format!("same_{n}"), "no-op", "a", "a")));
    json!({"format_version": "1.2", "terraform_version": "1.11.4", "planned_values": {}, "configuration": {},
        "complete": true, "errored": false, "resource_drift": [entry(name, "update", "a", "b")],
        "resource_changes": changes})
    .to_string()
    .into_bytes()
}

/// A schedule that is due when a year begins.
pub(super) fn yearly(state: &str, pipeline: &str) -> DriftSchedule {
    DriftSchedule {
        state_id: state.to_owned(),
        pipeline_id: pipeline.to_owned(),
        cron: "0 0 1 1 *".to_owned(),
        ..Default::default()
    }
}
