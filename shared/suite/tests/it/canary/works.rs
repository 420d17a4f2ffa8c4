//! What states, plans, logs and drift hold, and the credentials of jobs: shown to who may see them, and found nowhere else.

use std::{collections::BTreeSet, time::Duration};

use api::{
    designs::v1::{CreateDesignRequest, ExportTerraformRequest, ListDesignsRequest, PublishDesignRequest},
    pipelines::v1::{
        AcquireRequest, AppendLogRequest, CompleteRequest, CreatePipelineRequest, Lease, ReadStageLogsRequest,
        RegisterRequest, RunPipelineRequest, StageOutcome, StartRequest, StartResponse,
        pipeline_service_client::PipelineServiceClient, runner_service_client::RunnerServiceClient,
    },
    terraform_state::v1::{
        CreateStateRequest, DetectDriftRequest, DownloadStateRequest, DriftLog, ListDriftLogsRequest,
        UploadStateRequest, drift_service_client::DriftServiceClient, state_service_client::StateServiceClient,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::stream;
use serde_json::{Value, json};
use testkit::Caller;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Status;
use uuid::Uuid;

use super::{
    needles, plant,
    search::{Hay, Kind, Seen, gather, overhear, search},
    secret_part,
};
use crate::{
    house::{House, eventually},
    story::{Person, blank, request_id},
    sweep::canvas,
};

fn canary(kind: &str) -> String {
    format!("canary {kind} {}", Uuid::new_v4().simple())
}

/// A state with a resource that holds `inner` and an output that is `outer`.
fn state(serial: u64, inner: &str, outer: &str) -> Value {
    json!({"version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": "canaries", "check_results": null,
        "outputs": {"told": {"value": outer, "type": "string", "sensitive": true}},
        "resources": [{"mode": "managed", "type": "terraform_data", "name": "thing",
            "provider": "provider[\"terraform.io/builtin/terraform\"]",
            "instances": [{"schema_version": 0, "attributes": {"id": "1", "input": inner}}]}]})
}

/// A refresh-only plan in which `input` went from one value to another, and a password too.
fn drifted(before: &str, after: &str, password: &str) -> Value {
    json!({"format_version": "1.2", "terraform_version": "1.11.4", "planned_values": {}, "resource_changes": [],
        "configuration": {}, "complete": true, "errored": false, "resource_drift": [{
            "address": "terraform_data.thing", "mode": "managed", "type": "terraform_data", "name": "thing",
            "provider_name": "terraform.io/builtin/terraform", "change": {"actions": ["update"],
                "before": {"input": before, "password": "old"}, "after": {"input": after, "password": password},
                "after_unknown": {}, "before_sensitive": {}, "after_sensitive": {}}}]})
}

/// Terraform's HTTP backend, said by hand: status and body.
async fn http(house: &House, call: &str, password: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(house.terraform()).await.unwrap();
    let credential = STANDARD.encode(format!("anyone:{password}"));
    let request = format!(
        "{call} HTTP/1.1\r\nhost: canary\r\nauthorization: Basic {credential}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or(0), answer)
}

/// A runner with its key, and the leases it takes.
struct Work {
    runners: RunnerServiceClient<Caller>,
    runner: String,
}

impl Work {
    async fn take(&mut self) -> (Lease, StartResponse) {
        let request = AcquireRequest {
            runner_id: self.runner.clone(),
            wait: None,
        };
        let lease = self.runners.acquire(request).await.expect("Acquire").into_inner();
        let lease = lease.lease.expect("a stage is ready");
        let start = StartRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            request_id: request_id(),
        };
        let started = self.runners.start(start).await.expect("Start").into_inner();
        (lease, started)
    }

    async fn say(&mut self, lease: &Lease, offset: i64, text: &str) -> Result<(), Status> {
        let more = AppendLogRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            offset,
            content: text.as_bytes().to_vec(),
        };
        self.runners.append_log(more).await.map(drop)
    }

    async fn complete(&mut self, lease: &Lease, log: &str, plan: &str) -> Result<(), Status> {
        let end = CompleteRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            outcome: StageOutcome::Succeeded.into(),
            log_bytes: log.len() as i64,
            plan: plan.as_bytes().to_vec(),
            request_id: request_id(),
            ..Default::default()
        };
        self.runners.complete(end).await.map(drop)
    }
}

/// A published design, and the name of a state for it.
async fn drawn(house: &House, ada: &Person) -> (String, String) {
    let create = CreateDesignRequest {
        canvas: Some(canvas(2)),
        ..blank("drawn")
    };
    let made = ada.designs(house).create_design(create).await.expect("CreateDesign");
    let design = made.into_inner().design.unwrap().id;
    let publish = PublishDesignRequest {
        design_id: design.clone(),
        ..Default::default()
    };
    ada.designs(house).publish_design(publish).await.expect("PublishDesign");
    (design, format!("canaries/{}", Uuid::new_v4().simple()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_states_plans_logs_and_drift_hold_is_in_no_log_metric_error_event_key_or_table() {
    let house = House::open_with(&[("BOARD3_LOG", "debug"), ("BOARD3_LOG_SQL", "1")]).await;
    let heard = overhear(&house).await;
    let kinds = [
        "attribute",
        "output",
        "refused",
        "before",
        "after",
        "masked",
        "plan",
        "log",
    ];
    let [inner, outer, refused, mut before, mut after, masked, plan, log] = kinds.map(canary);
    // What looks random is masked; plain words are not.
    for (value, words) in [
        (&mut before, "a pelican before noon"),
        (&mut after, "a pelican after noon"),
    ] {
        words.clone_into(value);
    }
    let mut seen = Seen::default();
    let ada = house.sign_up("ada").await;
    let (design, name) = drawn(&house, &ada).await;
    let key = house.api_key(&ada, &["terraform_state.*.*"]).await.secret;

    // A state over gRPC, taken and refused.
    let caller = house.terraform_state().with(&ada.access);
    let (mut states, mut drifts) = (StateServiceClient::new(caller.clone()), DriftServiceClient::new(caller));
    let create = CreateStateRequest {
        name: name.clone(),
        design_id: design.clone(),
        request_id: request_id(),
    };
    let made = states.create_state(create).await.expect("CreateState").into_inner();
    let id = made.state.unwrap().id;
    let mut upload = async |content: Vec<u8>, lock: &str| {
        let request = UploadStateRequest {
            state_id: id.clone(),
            lock_id: lock.to_owned(),
            request_id: request_id(),
            content,
            ..Default::default()
        };
        states.upload_state(stream::iter([request])).await
    };
    let body = |serial, inner: &str, outer: &str| state(serial, inner, outer).to_string();
    upload(body(1, &inner, &outer).into(), "").await.expect("UploadState");
    for (what, content, lock) in [
        ("no state", format!("{{\"version\": 4, \"serial\": \"{refused}\""), ""),
        ("a state of another serial", body(1, &refused, &refused), ""),
        ("a state under no lock", body(2, &refused, &refused), "not-held"),
    ] {
        seen.refused(what, upload(content.into(), lock).await);
    }
    let download = DownloadStateRequest {
        state_id: id.clone(),
        version: 0,
    };
    let mut parts = states
        .download_state(download)
        .await
        .expect("DownloadState")
        .into_inner();
    let first = parts.message().await.unwrap().unwrap().content;
    let shown = String::from_utf8(first).unwrap();
    assert!(shown.contains(&inner) && shown.contains(&outer), "who may sees it");

    // The same over HTTP, with the key as its password.
    let lock = json!({"ID": Uuid::new_v4(), "Operation": "OperationTypeApply", "Who": "canary", "Version": "1.11.4"});
    let (address, lock_id) = (format!("/v1/states/{name}"), lock["ID"].as_str().unwrap().to_owned());
    let post = format!("POST {address}?ID={lock_id}");
    for (call, body) in [
        (format!("LOCK {address}"), lock.to_string()),
        (post.clone(), body(2, &inner, &outer)),
        (format!("GET {address}"), String::new()),
    ] {
        let (status, answer) = http(&house, &call, &key, &body).await;
        assert_eq!(status, 200, "{call}: {answer}");
        assert!(!call.starts_with("GET") || answer.contains(&inner));
    }
    for (what, call, password, body) in [
        (
            "a wrong key over HTTP",
            format!("GET {address}"),
            format!("{key}x"),
            String::new(),
        ),
        (
            "a POST by no one",
            post.clone(),
            masked.clone(),
            body(3, &refused, &refused),
        ),
        (
            "a POST of no state",
            post.clone(),
            key.clone(),
            format!("{{\"serial\": \"{refused}\""),
        ),
        (
            "a POST of an old serial",
            post,
            key.clone(),
            body(1, &refused, &refused),
        ),
        (
            "a POST without the lock",
            format!("POST {address}"),
            key.clone(),
            body(3, &refused, &refused),
        ),
    ] {
        let (status, answer) = http(&house, &call, &password, &body).await;
        assert!((400..500).contains(&status), "{what}: {answer}");
        seen.0.push(Hay {
            kind: Kind::Error,
            place: what.to_owned(),
            text: answer,
        });
    }
    let (status, _) = http(&house, &format!("UNLOCK {address}"), &key, &lock.to_string()).await;
    assert_eq!(status, 200);

    // Drift: what is found is shown, and what is masked is not.
    let mut detect = async |plan_json: Vec<u8>| {
        let request = DetectDriftRequest {
            state_id: id.clone(),
            request_id: request_id(),
            plan_json,
            ..Default::default()
        };
        drifts.detect_drift(stream::iter([request])).await
    };
    let found = detect(drifted(&before, &after, &masked).to_string().into()).await;
    assert_eq!(found.expect("DetectDrift").into_inner().drift_logs, 2);
    let broken = format!("{{\"format_version\": \"1.2\", \"resource_drift\": \"{refused}\"}}");
    seen.refused("no plan", detect(broken.into()).await);
    let logs = drifts
        .list_drift_logs(ListDriftLogsRequest::default())
        .await
        .expect("ListDriftLogs");
    let values = |log: &DriftLog| format!("{:?} {:?}", log.before, log.after);
    let shown: String = logs.into_inner().drift_logs.iter().map(values).collect();
    assert!(
        shown.contains(&before) && shown.contains(&after) && !shown.contains(&masked),
        "{shown}"
    );

    // A pipeline's stages: their logs, the plan, and what jobs come in with.
    let mut pipelines = PipelineServiceClient::new(house.pipelines().with(&ada.access));
    let create = CreatePipelineRequest {
        name: "canaries".to_owned(),
        design_id: design.clone(),
        state_name: name,
        ..Default::default()
    };
    let made = pipelines
        .create_pipeline(create)
        .await
        .expect("CreatePipeline")
        .into_inner();
    let run = RunPipelineRequest {
        pipeline_id: made.pipeline.unwrap().id,
        ..Default::default()
    };
    pipelines.run_pipeline(run).await.expect("RunPipeline");
    let runner_key = house.api_key(&ada, &["pipelines.runner.work"]).await.secret;
    let mut runners = RunnerServiceClient::new(house.pipelines().with(&runner_key));
    let register = RegisterRequest {
        name: "canary".to_owned(),
        ..Default::default()
    };
    let runner = runners
        .register(register)
        .await
        .expect("Register")
        .into_inner()
        .runner
        .unwrap()
        .id;
    let mut work = Work { runners, runner };
    let mut credentials = Vec::new();
    for said in ["", plan.as_str(), ""] {
        let (lease, started) = work.take().await;
        assert_eq!(
            String::from_utf8(started.plan).unwrap(),
            if credentials.len() == 2 { plan.as_str() } else { "" }
        );
        let job = lease.job_credential.clone();
        let mut designs = api::designs::v1::design_service_client::DesignServiceClient::new(house.designs().with(&job));
        let export = ExportTerraformRequest {
            design_id: design.clone(),
            version: 1,
            state_name: lease.state_name.clone(),
        };
        designs.export_terraform(export).await.expect("ExportTerraform");
        seen.refused(
            "a job where it may nothing",
            designs.list_designs(ListDesignsRequest::default()).await,
        );
        let forged = house.designs().with(&format!("{job}x"));
        let mut forged = api::designs::v1::design_service_client::DesignServiceClient::new(forged);
        seen.refused("a forged job", forged.list_designs(ListDesignsRequest::default()).await);
        work.say(&lease, 0, &log).await.expect("AppendLog");
        seen.refused("a gap in a log", work.say(&lease, 10_000, &log).await);
        let stale = Lease {
            generation: lease.generation + 1,
            ..lease.clone()
        };
        seen.refused("a lost lease", work.say(&stale, 0, &log).await);
        seen.refused("a lost lease's end", work.complete(&stale, &log, &plan).await);
        work.complete(&lease, &log, said).await.expect("Complete");
        seen.refused("a sealed log", work.say(&lease, 0, &log).await);
        let ended = async || designs.clone().list_designs(ListDesignsRequest::default()).await.err();
        let status = eventually("the job has ended", Duration::from_secs(10), async || {
            ended()
                .await
                .filter(|status| status.code() == tonic::Code::Unauthenticated)
        });
        seen.refused("an ended job", Err::<(), _>(status.await));
        let read = ReadStageLogsRequest {
            stage_id: lease.stage_id.clone(),
            ..Default::default()
        };
        let mut parts = pipelines
            .read_stage_logs(read)
            .await
            .expect("ReadStageLogs")
            .into_inner();
        assert_eq!(parts.message().await.unwrap().unwrap().content, log.as_bytes());
        credentials.push(job);
    }

    let named = [&inner, &outer, &refused, &before, &after, &masked, &plan, &log];
    let mut secrets: Vec<(&str, &str)> = kinds.into_iter().zip(named.map(String::as_str)).collect();
    secrets.extend(credentials.iter().map(|job| ("a job's credential", job.as_str())));
    secrets.extend([
        ("the API key", secret_part(&key)),
        ("the runner's key", secret_part(&runner_key)),
    ]);
    let needles = needles(&house, &secrets);
    let mut hay = gather(&house).await;
    hay.push(Hay {
        kind: Kind::Redis,
        place: "what was said".to_owned(),
        text: heard.lock().await.clone(),
    });
    hay.extend(seen.0);
    for (kind, place, known) in [
        (Kind::Log, "terraform_state", "UploadState"),
        (Kind::Log, "pipelines", "AppendLog"),
        (Kind::Metric, "pipelines", "AppendLog"),
        (Kind::Table, "terraform_state.drift_logs", "terraform_data.thing"),
        (Kind::Table, "pipelines.runners", "canary"),
    ] {
        let read = |hay: &Hay| hay.kind == kind && hay.place == place && hay.text.contains(known);
        assert!(hay.iter().any(read), "{kind:?} of {place} were not read");
    }
    let found: Vec<_> = search(&needles, &hay).into_iter().map(|(_, found)| found).collect();
    assert!(found.is_empty(), "{found:#?}");

    plant(&house, &inner).await;
    let found: BTreeSet<_> = search(&needles, &gather(&house).await)
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(found, [Kind::Log, Kind::Event, Kind::Redis, Kind::Table].into());
}
