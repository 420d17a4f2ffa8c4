//! A terraform-state service, callers of it, and an HTTP client that says exactly what it is told to say.

use std::{net::SocketAddr, time::Duration};

use api::{
    events::v1::Event,
    terraform_state::v1::{
        CreateStateRequest, State, lock_service_client::LockServiceClient, state_service_client::StateServiceClient,
    },
};
use kit::ids::{OrgId, Principal, UserId};
use prost::Message;
use serde_json::{Value, json};
use testkit::{Caller, Served};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::Client;
use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;

/// All that a caller may do here but force.
pub(crate) const WORK: [&str; 3] = [
    "terraform_state.state.*",
    "terraform_state.lock.write",
    "terraform_state.drift.*",
];
pub(crate) const EVERYTHING: [&str; 1] = ["terraform_state.*.*"];

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

    pub(crate) async fn with(env: &[(&str, &str)]) -> Self {
        let served = testkit::serve_with(terraform_state::SERVICE, env).await;
        // A service keeps to itself what a panic says; a test tells why it failed.
        drop(std::panic::take_hook());
        let admin = served.database.admin().await;
        admin.batch_execute("set search_path = terraform_state").await.unwrap();
        World {
            served,
            admin,
            org: OrgId::new(),
        }
    }

    /// Another server on the same database, with another environment.
    pub(crate) async fn replica(&self, env: &[(&str, &str)]) -> kit::service::Running {
        replica(&self.served, env).await
    }

    /// A new user's access token.
    pub(crate) fn token(&self, org: OrgId, permissions: &[&str]) -> String {
        let principal = Principal::User(UserId::new());
        self.served.office.grant(org, principal, permissions);
        self.served.office.token(org, principal, Uuid::now_v7(), 1)
    }

    /// Where Terraform's backend is.
    pub(crate) fn door(&self) -> SocketAddr {
        self.served.running.doors[0]
    }

    /// A caller over HTTP with these permissions.
    pub(crate) fn http(&self, permissions: &[&str]) -> Http {
        self.http_as(&self.token(self.org, permissions))
    }

    pub(crate) fn http_as(&self, password: &str) -> Http {
        Http {
            door: self.door(),
            authorization: basic(password),
        }
    }

    /// A caller over gRPC and HTTP alike.
    pub(crate) fn both(&self, permissions: &[&str]) -> (Grpc, Http) {
        let token = self.token(self.org, permissions);
        (Grpc::new(self.served.with(&token)), self.http_as(&token))
    }

    pub(crate) fn grpc(&self, permissions: &[&str]) -> Grpc {
        self.both(permissions).0
    }

    /// One number that the database answers.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.admin.query_one(query, &[]).await.unwrap().get(0)
    }

    /// How many versions a state has.
    pub(crate) async fn versions(&self, name: &str) -> i64 {
        let query = format!(
            "select count(*) from state_versions v join states s on s.org_id = v.org_id and s.id = v.state_id where name = '{name}'"
        );
        self.number(&query).await
    }

    /// Everything told so far.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let rows = self.admin.query("select envelope from outbox order by id", &[]);
        let rows = rows.await.unwrap();
        rows.iter()
            .map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap())
            .collect()
    }

    /// The audited actions so far, and how each ended.
    pub(crate) async fn audited(&self) -> Vec<(String, String)> {
        let events = self.events().await;
        let audited = events.into_iter().filter(|event| event.audited);
        audited.map(|event| (event.action, event.reason)).collect()
    }
}

pub(crate) fn basic(password: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("anyone:{password}")))
}

pub(crate) struct Grpc {
    pub(crate) states: StateServiceClient<Caller>,
    pub(crate) locks: LockServiceClient<Caller>,
}

impl Grpc {
    pub(crate) fn new(caller: Caller) -> Self {
        Grpc {
            states: StateServiceClient::new(caller.clone()),
            locks: LockServiceClient::new(caller),
        }
    }

    pub(crate) async fn create(&mut self, name: &str) -> Result<State, Status> {
        let request = CreateStateRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        Ok(self.states.create_state(request).await?.into_inner().state.unwrap())
    }

    /// The state of a name.
    pub(crate) async fn named(&mut self, name: &str) -> State {
        let request = api::terraform_state::v1::ListStatesRequest {
            name_prefix: name.to_owned(),
            ..Default::default()
        };
        let states = self.states.list_states(request).await.unwrap().into_inner().states;
        states.into_iter().find(|state| state.name == name).unwrap()
    }
}

/// One caller over HTTP.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) door: SocketAddr,
    pub(crate) authorization: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value)
    }

    pub(crate) fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap().to_owned()
    }
}

impl Http {
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask_with(method, path, &[], body).await
    }

    /// A request with these headers beside the usual ones, on a connection of its own.
    pub(crate) async fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: board3\r\nconnection: close\r\n");
        if !self.authorization.is_empty() {
            head.push_str(&format!("authorization: {}\r\n", self.authorization));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut stream = TcpStream::connect(self.door).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // The other end may answer and close before it has read all.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        read.expect("an answer in time").unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let answer = Answer {
            status,
            head,
            body: answer[end + 4..].to_vec(),
        };
        assert!(answer.header("x-request-id").is_some(), "{}", answer.head);
        let length = answer.header("content-length").map(|length| length.parse().unwrap());
        if method != "HEAD" {
            assert_eq!(length, Some(answer.body.len()), "{}", answer.head);
        }
        answer
    }

    pub(crate) async fn get(&self, name: &str) -> Answer {
        self.ask("GET", &format!("/v1/states/{name}"), b"").await
    }

    pub(crate) async fn lock(&self, name: &str, id: &str) -> Answer {
        self.lock_for(name, id, "OperationTypeApply").await
    }

    pub(crate) async fn lock_for(&self, name: &str, id: &str, operation: &str) -> Answer {
        let info = lock_info(id, operation);
        self.ask("LOCK", &format!("/v1/states/{name}"), info.as_bytes()).await
    }

    pub(crate) async fn unlock(&self, name: &str, id: &str) -> Answer {
        let info = lock_info(id, "OperationTypeApply");
        self.ask("UNLOCK", &format!("/v1/states/{name}"), info.as_bytes()).await
    }

    /// Writes under a lock; under none for the empty id.
    pub(crate) async fn post(&self, name: &str, id: &str, state: &str) -> Answer {
        let query = if id.is_empty() {
            String::new()
        } else {
            format!("?ID={id}")
        };
        let path = format!("/v1/states/{name}{query}");
        self.ask("POST", &path, state.as_bytes()).await
    }
}

/// A LockInfo as Terraform 1.11 sends it.
pub(crate) fn lock_info(id: &str, operation: &str) -> String {
    json!({"ID": id, "Operation": operation, "Info": "", "Who": "root@vm", "Version": "1.11.4",
        "Created": "2026-11-22T12:33:13.434331102Z", "Path": ""})
    .to_string()
}

/// A state with one resource that holds a value.
pub(crate) fn state(serial: u64, lineage: &str, value: &str) -> String {
    format!(
        r#"{{
  "version": 4, "terraform_version": "1.11.4", "serial": {serial}, "lineage": "{lineage}", "outputs": {{}},
  "resources": [{{"mode": "managed", "type": "terraform_data", "name": "a",
    "provider": "provider[\"terraform.io/builtin/terraform\"]",
    "instances": [{{"schema_version": 0, "attributes": {{"id": "1", "input": "{value}", "n": 1.00e2}}}}]}}],
  "check_results": null
}}
"#
    )
}

/// A state after destroy.
pub(crate) fn blank(serial: u64, lineage: &str) -> String {
    format!(
        r#"{{"version":4,"terraform_version":"1.11.4","serial":{serial},"lineage":"{lineage}","outputs":{{}},"resources":[],"check_results":null}}"#
    )
}

pub(crate) fn id() -> String {
    Uuid::new_v4().to_string()
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

/// So many characters that nothing makes much smaller, the same for the same seed.
pub(crate) fn noise(characters: usize, seed: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut bytes = vec![0; characters.div_ceil(4) * 3];
    blake3::Hasher::new()
        .update(seed.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    let mut text = STANDARD.encode(bytes);
    text.truncate(characters);
    text
}

impl World {
    /// A service whose compactor does not look by itself, nor at what is written.
    pub(crate) async fn uncompacted() -> Self {
        Self::with(&[("BOARD3_STATE_COMPACT_AFTER_SECONDS", "86400")]).await
    }

    /// Waits until an answer is this one.
    pub(crate) async fn until(&self, query: &str, wanted: i64) {
        let start = std::time::Instant::now();
        loop {
            let found = self.number(query).await;
            if found == wanted {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(90),
                "{query}: {found}, not {wanted}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every state has been looked at by a compactor.
    pub(crate) async fn compacted(&self) {
        let due = "insert into compactions (org_id, state_id, due_at) select org_id, id, now() from states \
                   on conflict (org_id, state_id) do update set due_at = now()";
        self.admin.batch_execute(due).await.unwrap();
        self.until("select count(*) from compactions where due_at <= clock_timestamp()", 0)
            .await;
    }
}

impl Grpc {
    /// The content of a version.
    pub(crate) async fn content(&mut self, state_id: &str, version: i64) -> Result<Vec<u8>, Status> {
        let request = api::terraform_state::v1::DownloadStateRequest {
            state_id: state_id.to_owned(),
            version,
        };
        let mut stream = self.states.download_state(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(part) = stream.message().await? {
            content.extend_from_slice(&part.content);
        }
        Ok(content)
    }
}

/// Another server on the same database as this one, with another environment.
pub(crate) async fn replica(served: &Served, env: &[(&str, &str)]) -> kit::service::Running {
    let mut variables = served.env.clone();
    variables.retain(|(name, _)| !env.iter().any(|(other, _)| other == name));
    variables.extend(
        env.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let running = kit::service::start(terraform_state::SERVICE, kit::config::Env::of(variables))
        .await
        .unwrap();
    drop(std::panic::take_hook());
    running
}
