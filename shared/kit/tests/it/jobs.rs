//! A job's credential at the socket, with the office in pipelines' place.

use api::{
    events::v1::{ActorKind, Event, Outcome},
    policy::{self, Method},
};
use async_trait::async_trait;
use http::{HeaderMap, Request, Response, request::Parts};
use kit::{
    auth::scope::OrgScope,
    config::Env,
    error::{Error, Result},
    ids::OrgId,
    rpc::Door,
    service::{Build, Parts as ServiceParts, Service},
};
use prost::Message;
use testkit::serve::Served;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::body::Body;

use crate::{events::SLICE, eventually};

const STATES: Service = Service {
    slice: &SLICE,
    configure,
};
const READ: &str = "terraform_state.state.read";

fn configure(env: &mut Env) -> Option<Build> {
    let listener = env.listen("TOY_LISTEN", "127.0.0.1:0")?;
    Some(Box::new(|_| {
        Box::pin(async { Ok(ServiceParts::new().door(listener, States)) })
    }))
}

/// Answers with who asks for the state that the path names.
struct States;

#[async_trait]
impl Door for States {
    fn method(&self, parts: &Parts) -> Option<&'static Method> {
        policy::find(match parts.uri.path() {
            "/of-users" => "/board3.identity.v1.UserService/GetMe",
            _ => "/board3.terraform_state.v1.StateService/ListStates",
        })
    }

    fn credential(&self, headers: &HeaderMap) -> Result<Option<String>> {
        let value = headers.get("x-job").and_then(|value| value.to_str().ok());
        Ok(value.map(str::to_owned))
    }

    async fn serve(&self, scope: OrgScope, request: Request<Body>) -> Result<Response<Body>> {
        scope.within("state", request.uri().path().trim_start_matches('/'))?;
        Ok(answer(format!("{} in {}", scope.principal(), scope.org())))
    }

    fn refuse(&self, error: &Error) -> Response<Body> {
        answer(error.reason_name().to_owned())
    }
}

fn answer(text: String) -> Response<Body> {
    Response::new(Body::new(http_body_util::Full::from(text)))
}

async fn asked(served: &Served, path: &str, credential: &str) -> String {
    let mut stream = TcpStream::connect(served.running.doors[0]).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: toy\r\nx-job: {credential}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The denials in the trail: whose, and why.
async fn denials(served: &Served) -> Vec<(ActorKind, String, String)> {
    let admin = served.database.admin().await;
    let rows = admin.query("select envelope from audit.outbox order by id", &[]).await;
    let events = rows
        .unwrap()
        .into_iter()
        .map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap());
    let denied = events.filter(|event| event.outcome() == Outcome::Denied);
    denied
        .map(|event| {
            let actor = event.actor.unwrap();
            (actor.kind(), actor.id, event.reason)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_credential_opens_its_state_for_as_long_as_the_job_lasts() {
    let served = testkit::serve::serve(STATES).await;
    let org = OrgId::new();
    let job = served.office.job(org, &[READ], "a design", "network");
    let other = served.office.job(org, &["designs.design.read"], "a design", "network");
    let id = served.office.job_id(&job).to_string();

    assert_eq!(asked(&served, "/network", &job).await, format!("job:{id} in {org}"));
    assert_eq!(asked(&served, "/database", &job).await, "CALLER_NOT_ALLOWED");
    assert_eq!(asked(&served, "/of-users", &job).await, "CALLER_NOT_ALLOWED");
    assert_eq!(asked(&served, "/network", &other).await, "PERMISSION_MISSING");
    assert_eq!(asked(&served, "/network", "b3j_stranger").await, "CREDENTIAL_INVALID");
    let (kind, other_id) = (ActorKind::Job, served.office.job_id(&other).to_string());
    assert_eq!(
        denials(&served).await,
        [
            (kind, id.clone(), "CALLER_NOT_ALLOWED".to_owned()),
            (kind, id.clone(), "CALLER_NOT_ALLOWED".to_owned()),
            (kind, other_id, "PERMISSION_MISSING".to_owned()),
        ]
    );

    served.office.end_job(&other);
    eventually(async || asked(&served, "/network", &other).await == "CREDENTIAL_INVALID").await;

    // A job that is known goes on; one that is not cannot be looked up.
    served.office.jobs_away(true);
    let new = served.office.job(org, &[READ], "a design", "network");
    assert_eq!(asked(&served, "/network", &new).await, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(asked(&served, "/network", &job).await, format!("job:{id} in {org}"));
    served.office.end_job(&job);
    assert_eq!(asked(&served, "/network", &job).await, format!("job:{id} in {org}"));
    served.office.jobs_away(false);
    eventually(async || asked(&served, "/network", &job).await == "CREDENTIAL_INVALID").await;
    eventually(async || asked(&served, "/network", &new).await.starts_with("job:")).await;
}
