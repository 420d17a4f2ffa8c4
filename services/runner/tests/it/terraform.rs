//! Stages with the real Terraform.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use api::pipelines::v1::{StageKind, StageOutcome};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    stand::API_KEY,
    world::{CONFIGURATION, World, until},
};

/// Prints the job's credential, the way a careless design might: plain, and as HTTP's basic authorization has it.
const TALKATIVE: &str = r#"{"resource":{"terraform_data":{"one":{"input":"1","provisioner":[{"local-exec":{
    "command":"echo see $TF_HTTP_PASSWORD; printf job:%s $TF_HTTP_PASSWORD | base64 -w 0"}}]}}}}"#;

#[tokio::test]
async fn a_valid_design_validates_under_the_jobs_credential_and_one_trace() {
    let Some(mut world) = World::with_terraform(CONFIGURATION).await else {
        return;
    };
    let lease = world.stand.hand_out(StageKind::Validate);
    let report = world.stand.report().await;
    let log = world.stand.log();
    assert_eq!(report.outcome(), StageOutcome::Succeeded, "{log}");
    assert!(log.contains("Success! The configuration is valid."), "{log}");
    assert_eq!((report.lease_id.as_str(), report.generation), (lease.as_str(), 7));
    world.stop().await;
    assert!(!world.work().join(lease).exists());
    world.stand.with(|known| {
        let version = &known.registered[0].terraform_version;
        assert!(version.split('.').count() == 3, "{version}");
        let of = |names: &[&str]| {
            known
                .calls
                .iter()
                .filter(|call| names.contains(&call.0))
                .cloned()
                .collect::<Vec<_>>()
        };
        let traces = of(&["start", "append_log", "export_terraform", "complete"]);
        assert!(
            traces.iter().all(|call| call.2[..35] == traces[0].2[..35]),
            "{traces:?}"
        );
        assert!(of(&["export_terraform"])[0].1.starts_with("Bearer b3j_"));
        let keyed = of(&["register", "acquire", "start", "append_log", "complete"]);
        assert!(keyed.iter().all(|call| call.1 == format!("Bearer {API_KEY}")));
    });
}

#[tokio::test]
async fn a_design_that_terraform_refuses_fails_with_its_error() {
    let Some(world) = World::with_terraform(r#"{"resource":{"terraform_data":{"one":{"colour":"red"}}}}"#).await else {
        return;
    };
    world.stand.hand_out(StageKind::Validate);
    let report = world.stand.report().await;
    assert_eq!(report.outcome(), StageOutcome::Failed);
    assert_eq!(report.failure_reason, "TERRAFORM_FAILED");
    assert_eq!(report.failure_detail, "Error: Extraneous JSON object property");
    assert!(world.stand.log().contains("\"colour\""), "{}", world.stand.log());
}

/// A backend that keeps one state and tells who asked for it.
#[derive(Clone, Default)]
struct Backend(Arc<Mutex<Kept>>);

#[derive(Clone, Default)]
struct Kept {
    state: Vec<u8>,
    credentials: Vec<String>,
    methods: Vec<String>,
}

impl Backend {
    /// A configuration that keeps its state here.
    async fn configuration(&self, configuration: &str) -> String {
        let mut configuration: serde_json::Value = serde_json::from_str(configuration).unwrap();
        let url = format!("{}/states/web", self.serve().await);
        configuration["terraform"]["backend"]["http"] =
            serde_json::json!({ "address": url, "lock_address": url, "unlock_address": url });
        configuration.to_string()
    }

    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let backend = self.clone();
        let router = Router::new().fallback(any(move |request: Request| backend.clone().answer(request)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    async fn answer(self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, 1024 * 1024).await.unwrap();
        let mut kept = self.0.lock().unwrap();
        let who = head.headers["authorization"].to_str().unwrap().replace("Basic ", "");
        kept.credentials
            .push(String::from_utf8(STANDARD.decode(who).unwrap()).unwrap());
        kept.methods.push(head.method.to_string());
        match head.method.as_str() {
            "GET" if kept.state.is_empty() => StatusCode::NO_CONTENT.into_response(),
            "GET" => Response::new(Body::from(kept.state.clone())),
            "POST" => {
                kept.state = body.to_vec();
                StatusCode::OK.into_response()
            }
            _ => StatusCode::OK.into_response(),
        }
    }
}

#[tokio::test]
async fn a_plan_is_applied_in_another_directory_with_another_credential_and_no_credential_is_told() {
    let backend = Backend::default();
    let Some(world) = World::with_terraform(&backend.configuration(TALKATIVE).await).await else {
        return;
    };
    world.stand.hand_out(StageKind::Plan);
    let planned = world.stand.report().await;
    assert_eq!(planned.outcome(), StageOutcome::Succeeded, "{}", world.stand.log());
    assert!(planned.plan.starts_with(b"PK"));
    world.stand.with(|known| {
        known.reports.clear();
        known.log.clear();
        known.plan = planned.plan;
    });
    world.stand.hand_out(StageKind::Apply);
    let applied = world.stand.report().await;
    let log = world.stand.log();
    assert_eq!(applied.outcome(), StageOutcome::Succeeded, "{log}");
    assert!(log.contains("Apply complete! Resources: 1 added"), "{log}");
    assert!(
        log.contains("see [masked]") && log.contains("(local-exec): [masked]"),
        "{log}"
    );

    let Kept {
        state,
        credentials: asked,
        ..
    } = backend.0.lock().unwrap().clone();
    assert!(String::from_utf8(state).unwrap().contains("terraform_data"));
    let credentials: VecDeque<_> = world.stand.with(|known| {
        let exports = known.calls.iter().filter(|call| call.0 == "export_terraform");
        exports.map(|call| call.1.replace("Bearer ", "")).collect()
    });
    assert_eq!(credentials.len(), 2);
    assert_eq!(asked.first(), Some(&format!("job:{}", credentials[0])));
    assert_eq!(asked.last(), Some(&format!("job:{}", credentials[1])));
    assert!(!log.contains(&credentials[1][10..]), "{log}");
}

#[tokio::test]
async fn terraform_stores_its_state_and_unlocks_it_though_its_runner_was_killed_in_mid_apply() {
    let backend = Backend::default();
    let Some(mut world) = World::with_terraform(&backend.configuration(CONFIGURATION).await).await else {
        return;
    };
    let begun = world.dir.path().join("begun");
    let endless = serde_json::json!({"local-exec": {"command": format!("echo x > {}; sleep 600", begun.display())}});
    world.stand.with(|known| {
        let mut configuration: serde_json::Value = serde_json::from_slice(&known.configuration).unwrap();
        configuration["resource"]["terraform_data"]["one"]["provisioner"] = serde_json::json!([endless]);
        known.configuration = configuration.to_string().into_bytes();
    });
    world.stand.hand_out(StageKind::Plan);
    let planned = world.stand.report().await;
    world.stop().await;
    world.stand.with(|known| {
        known.reports.clear();
        known.log.clear();
        known.plan = planned.plan;
    });
    let mut runner = world.process("terraform");
    let lease = world.stand.hand_out(StageKind::Apply);
    world.begun().await;
    runner.kill().await.unwrap();
    let methods = || backend.0.lock().unwrap().methods.clone();
    until("the unlock after a state", || {
        let methods = methods();
        methods.contains(&"POST".to_owned()) && methods.last().is_some_and(|last| last == "UNLOCK")
    })
    .await;
    let state = String::from_utf8(backend.0.lock().unwrap().state.clone()).unwrap();
    assert!(state.contains("tainted"), "{state}");
    assert!(world.stand.with(|known| known.reports.is_empty()));
    assert_eq!(world.outcome(&lease)["step"], "terraform apply");
}
