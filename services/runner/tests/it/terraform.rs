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
    world::{CONFIGURATION, World},
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
struct Backend(Arc<Mutex<(Vec<u8>, Vec<String>)>>);

impl Backend {
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
        kept.1.push(String::from_utf8(STANDARD.decode(who).unwrap()).unwrap());
        match head.method.as_str() {
            "GET" if kept.0.is_empty() => StatusCode::NO_CONTENT.into_response(),
            "GET" => Response::new(Body::from(kept.0.clone())),
            "POST" => {
                kept.0 = body.to_vec();
                StatusCode::OK.into_response()
            }
            _ => StatusCode::OK.into_response(),
        }
    }
}

#[tokio::test]
async fn a_plan_is_applied_in_another_directory_with_another_credential_and_no_credential_is_told() {
    let backend = Backend::default();
    let address = backend.serve().await;
    let mut configuration: serde_json::Value = serde_json::from_str(TALKATIVE).unwrap();
    let url = format!("{address}/states/web");
    configuration["terraform"]["backend"]["http"] =
        serde_json::json!({ "address": url, "lock_address": url, "unlock_address": url });
    let Some(world) = World::with_terraform(&configuration.to_string()).await else {
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

    let (state, asked) = backend.0.lock().unwrap().clone();
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
