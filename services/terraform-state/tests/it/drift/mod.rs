//! Drift: plans in, findings out, and no secret left behind.

mod checked;
mod kept;
mod listed;
mod terraform;

use api::{
    events::v1::{DriftChecked, Event, event::Payload},
    terraform_state::v1::{
        CreateStateRequest, DetectDriftRequest, DetectDriftResponse, DriftKind, DriftLog, ListDriftLogsRequest,
        ListDriftLogsResponse, drift_service_client::DriftServiceClient, state_service_client::StateServiceClient,
    },
};
use kit::ids::OrgId;
use prost::Message;
use prost_types::value::Kind;
use serde_json::{Value, json};
use testkit::{Caller, Role, Served};
use tokio_postgres::Client;
use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;

const REFRESH_ONLY: &str = include_str!("../../plans/refresh_only.json");

struct World {
    served: Served,
    admin: Client,
    org: OrgId,
    caller: Caller,
}

impl World {
    async fn new() -> Self {
        let served = testkit::serve(terraform_state::SERVICE).await;
        drop(std::panic::take_hook());
        let admin = served.database.admin().await;
        admin.batch_execute("set search_path = terraform_state").await.unwrap();
        let org = OrgId::new();
        let caller = served.caller(org, &["terraform_state.*.*"]);
        World {
            served,
            admin,
            org,
            caller,
        }
    }

    async fn state(&self, name: &str) -> String {
        let request = CreateStateRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let mut states = StateServiceClient::new(self.caller.clone());
        states
            .create_state(request)
            .await
            .unwrap()
            .into_inner()
            .state
            .unwrap()
            .id
    }

    /// Has a plan checked, sent in parts of this many bytes.
    async fn detect_in(
        &self,
        state: &str,
        request_id: &str,
        plan: &[u8],
        bytes: usize,
    ) -> Result<DetectDriftResponse, Status> {
        detect_as(&self.caller, state, request_id, plan, bytes).await
    }

    async fn detect(&self, state: &str, plan: impl AsRef<[u8]>) -> Result<DetectDriftResponse, Status> {
        self.detect_in(state, "", plan.as_ref(), 1 << 20).await
    }

    async fn page(&self, request: ListDriftLogsRequest) -> Result<ListDriftLogsResponse, Status> {
        let mut client = DriftServiceClient::new(self.caller.clone());
        Ok(client.list_drift_logs(request).await?.into_inner())
    }

    async fn logs(&self, state: &str) -> Vec<DriftLog> {
        let request = ListDriftLogsRequest {
            state_id: state.to_owned(),
            page_size: 1_000,
            ..Default::default()
        };
        self.page(request).await.unwrap().drift_logs
    }

    async fn number(&self, query: &str) -> i64 {
        self.admin.query_one(query, &[]).await.unwrap().get(0)
    }

    async fn events(&self) -> Vec<Event> {
        let rows = self.admin.query("select envelope from outbox order by id", &[]).await;
        rows.unwrap()
            .iter()
            .map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap())
            .collect()
    }

    /// What peers were told of checks so far.
    async fn told(&self) -> Vec<DriftChecked> {
        let checked = |event: Event| match event.payload {
            Some(Payload::DriftChecked(checked)) => Some(checked),
            _ => None,
        };
        self.events().await.into_iter().filter_map(checked).collect()
    }
}

async fn detect_as(
    caller: &Caller,
    state: &str,
    request_id: &str,
    plan: &[u8],
    bytes: usize,
) -> Result<DetectDriftResponse, Status> {
    let mut messages: Vec<DetectDriftRequest> = plan
        .chunks(bytes)
        .map(|part| DetectDriftRequest {
            plan_json: part.to_vec(),
            ..Default::default()
        })
        .collect();
    if messages.is_empty() {
        messages.push(DetectDriftRequest::default());
    }
    messages[0].state_id = state.to_owned();
    messages[0].request_id = request_id.to_owned();
    let mut client = DriftServiceClient::new(caller.clone());
    Ok(client.detect_drift(tokio_stream::iter(messages)).await?.into_inner())
}

/// The reason of a failure and the fields that it names.
fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> (String, Vec<String>) {
    let details = answer.unwrap_err().get_error_details();
    let fields = details
        .bad_request()
        .into_iter()
        .flat_map(|request| &request.field_violations);
    let fields = fields.map(|violation| violation.field.clone()).collect();
    (details.error_info().unwrap().reason.clone(), fields)
}

fn plan(drift: Value) -> String {
    json!({"format_version": "1.2", "planned_values": {}, "configuration": {}, "resource_drift": drift, "errored": false, "complete": true})
        .to_string()
}

fn update(address: &str, before: Value, after: Value) -> Value {
    json!({"address": address, "mode": "managed", "type": "fake_server", "change": {"actions": ["update"], "before": before, "after": after}})
}

/// `address path: before -> after`, or what is known of it.
fn line(log: &DriftLog) -> String {
    let value = |value: &Option<prost_types::Value>| match value.as_ref().and_then(|value| value.kind.clone()) {
        None => "-".to_owned(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::StringValue(text)) => text,
        Some(kind) => format!("{kind:?}"),
    };
    let DriftLog { address, path, .. } = log;
    let (before, after) = (value(&log.before), value(&log.after));
    match (log.kind(), log.masked) {
        (DriftKind::Deleted, _) => format!("{address} is gone"),
        (_, true) => format!("{address} {path}: masked {before}{after}"),
        _ => format!("{address} {path}: {before} -> {after}"),
    }
}

impl World {
    async fn metrics(&self) -> String {
        use std::io::{Read, Write};
        let address = self.served.running.http;
        let read = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /health/metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        read.await.unwrap()
    }
}
