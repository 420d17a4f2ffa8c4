//! Drift: plans in, findings out, and no secret left behind.

mod aws;
mod checked;
mod kept;
mod life;
mod listed;
mod observed;
mod provider;
mod rotated;
mod rule;
mod terraform;
mod view;
mod watch;

use api::{
    events::v1::{DriftChecked, DriftFound, Event, event::Payload},
    terraform_state::v1::{
        AcceptDriftRequest, CreateStateRequest, DetectDriftRequest, DetectDriftResponse, DriftCause, DriftKind,
        DriftLog, DriftRule, DriftSeverity, DriftStatus, GetThreeWayViewRequest, ListDriftLogsRequest,
        ListDriftLogsResponse, ThreeWayRow, drift_service_client::DriftServiceClient,
        state_service_client::StateServiceClient,
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

    fn drifts(&self) -> DriftServiceClient<Caller> {
        DriftServiceClient::new(self.caller.clone())
    }

    /// Where each drift log of a state stands, newest first: `path status`.
    async fn stand(&self, state: &str) -> Vec<String> {
        let logs = self.logs(state).await.into_iter();
        logs.map(|log| format!("{} {:?}", log.path, log.status())).collect()
    }

    async fn accept(&self, log: &DriftLog) -> DriftLog {
        let request = AcceptDriftRequest {
            drift_log_id: log.id.clone(),
            reason: "it may stay".to_owned(),
            ..Default::default()
        };
        let accepted = self.drifts().accept_drift(request).await.unwrap().into_inner();
        accepted.drift_log.unwrap()
    }

    async fn rule(&self, rule: DriftRule) -> Result<DriftRule, Status> {
        let request = api::terraform_state::v1::CreateDriftRuleRequest {
            drift_rule: Some(rule),
            ..Default::default()
        };
        let made = self.drifts().create_drift_rule(request).await?.into_inner();
        Ok(made.drift_rule.unwrap())
    }

    async fn view(&self, state: &str) -> Vec<ThreeWayRow> {
        let request = GetThreeWayViewRequest {
            state_id: state.to_owned(),
            page_size: 1_000,
            ..Default::default()
        };
        self.drifts()
            .get_three_way_view(request)
            .await
            .unwrap()
            .into_inner()
            .rows
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

impl World {
    /// What peers were told of new findings so far: `address severity`, and whether it was reopened.
    async fn found(&self) -> Vec<String> {
        let found = |event: Event| match event.payload {
            Some(Payload::DriftFound(found)) => Some(found),
            _ => None,
        };
        let parts: Vec<DriftFound> = self.events().await.into_iter().filter_map(found).collect();
        let each = parts.into_iter().flat_map(|part| part.found);
        each.map(|one| {
            let again = if one.reopened { " again" } else { "" };
            format!("{} {}{again}", one.address, one.severity)
        })
        .collect()
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

fn value(value: &Option<prost_types::Value>) -> String {
    match value.as_ref().and_then(|value| value.kind.clone()) {
        None => "-".to_owned(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::StringValue(text)) => text,
        Some(kind) => format!("{kind:?}"),
    }
}

/// `address path: cause design state reality`, or what is known of it.
fn row(row: &ThreeWayRow) -> String {
    let ThreeWayRow { address, path, .. } = row;
    let cause = row.cause();
    match row.masked {
        true => format!("{address} {path}: {cause:?} masked"),
        false => format!(
            "{address} {path}: {cause:?} {} {} {}",
            value(&row.design),
            value(&row.state),
            value(&row.reality)
        ),
    }
}

/// `address path: before -> after`, or what is known of it.
fn line(log: &DriftLog) -> String {
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
