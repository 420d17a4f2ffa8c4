//! A toy door: what passes the stack over HTTP/1.1 and h2c, how failures look there, and the end of a service with work
//! and open connections.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use api::{
    events::v1::{Event, Outcome},
    policy::{self, Method},
};
use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit::{
    auth::scope::OrgScope,
    config::Env,
    error::{Error, Reason, Result},
    ids::{OrgId, Principal, UserId},
    rpc::Door,
    service::{Build, Parts as ServiceParts, Service},
};
use prost::Message;
use testkit::serve::Served;
use tokio::{net::TcpStream, sync::Notify};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use uuid::Uuid;

use crate::{events::SLICE, eventually};

const DOORED: Service = Service {
    slice: &SLICE,
    configure,
};
const READ: &str = "terraform_state.state.read";

fn configure(env: &mut Env) -> Option<Build> {
    let listener = env.listen("TOY_LISTEN", "127.0.0.1:0")?;
    Some(Box::new(|_| {
        Box::pin(async { Ok(ServiceParts::new().door(listener, Toy)) })
    }))
}

struct Toy;

/// How many requests of `/counted` began.
static BEGUN: AtomicUsize = AtomicUsize::new(0);
/// What handlers of `/held` wait for, and how far they came.
static RELEASED: Notify = Notify::const_new();
static HOLDING: AtomicBool = AtomicBool::new(false);
static HELD_TO_ITS_END: AtomicBool = AtomicBool::new(false);

#[async_trait]
impl Door for Toy {
    fn method(&self, parts: &Parts) -> Option<&'static Method> {
        match parts.uri.path() {
            "/" | "/panic" | "/not-yours" | "/held" | "/counted" => {
                policy::find("/board3.terraform_state.v1.StateService/ListStates")
            }
            "/public" => policy::find("/board3.identity.v1.AuthService/Login"),
            _ => None,
        }
    }

    fn credential(&self, headers: &HeaderMap) -> Result<Option<String>> {
        let Some(value) = headers.get("authorization") else {
            return Ok(None);
        };
        let password = value
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix("Basic "))
            .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
            .and_then(|decoded| String::from_utf8(decoded).ok())
            .and_then(|pair| pair.split_once(':').map(|(_, password)| password.to_owned()))
            .ok_or_else(|| Error::new(Reason::CredentialInvalid, "basic auth it must be"))?;
        Ok(Some(password))
    }

    async fn serve(&self, scope: OrgScope, request: Request<Body>) -> Result<Response<Body>> {
        match request.uri().path() {
            "/panic" => panic!("a handler's bug"),
            "/not-yours" => Err(Error::new(Reason::CallerNotAllowed, "this is somebody else's")),
            "/held" => {
                HOLDING.store(true, Ordering::SeqCst);
                RELEASED.notified().await;
                HELD_TO_ITS_END.store(true, Ordering::SeqCst);
                Ok(Response::new(Body::empty()))
            }
            path => {
                if path == "/counted" {
                    BEGUN.fetch_add(1, Ordering::SeqCst);
                }
                let told = format!("{} in {}: ", request.method(), scope.org());
                let sent = request.into_body().collect().await.map_err(Error::internal)?.to_bytes();
                Ok(Response::new(text([told.as_bytes(), &sent].concat())))
            }
        }
    }

    fn refuse(&self, error: &Error) -> Response<Body> {
        let status = match error.reason() {
            Reason::MethodUnknown => StatusCode::NOT_FOUND,
            Reason::CredentialInvalid => StatusCode::UNAUTHORIZED,
            Reason::PermissionMissing | Reason::CallerNotAllowed => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = Response::new(text(error.reason_name()));
        *response.status_mut() = status;
        response
    }
}

fn text(text: impl Into<Bytes>) -> Body {
    Body::new(http_body_util::Full::new(text.into()))
}

enum Client {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Client {
    async fn connect(served: &Served, version: Version) -> Client {
        let stream = TcpStream::connect(served.running.doors[0]).await.unwrap();
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Client::Two(client)
        } else {
            let (client, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Client::One(client)
        }
    }

    async fn send(&mut self, request: Request<Body>) -> (StatusCode, String, HeaderMap) {
        let response = match self {
            Client::One(client) => {
                client.ready().await.unwrap();
                client.send_request(request).await
            }
            Client::Two(client) => client.send_request(request).await,
        };
        let (parts, body) = response.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, String::from_utf8(body.to_vec()).unwrap(), parts.headers)
    }

    async fn ask(&mut self, method: &str, path: &str, credential: &str) -> (StatusCode, String) {
        let (status, body, headers) = self.send(request(method, path, credential, text("x"))).await;
        assert!(headers.contains_key("x-request-id"), "{method} {path}");
        (status, body)
    }
}

fn request(method: &str, path: &str, credential: &str, body: Body) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://door{path}"))
        .header("host", "door");
    if !credential.is_empty() {
        let pair = BASE64_STANDARD.encode(format!("board3:{credential}"));
        request = request.header("authorization", format!("Basic {pair}"));
    }
    request.body(body).unwrap()
}

fn token(served: &Served, org: OrgId, permissions: &[&str]) -> String {
    let principal = Principal::User(UserId::new());
    served.office.grant(org, principal, permissions);
    served.office.token(org, principal, Uuid::now_v7(), 1)
}

/// Action, outcome and reason of what the outbox tells of an organization.
async fn trail(served: &Served, org: OrgId) -> Vec<(String, Outcome, String)> {
    let admin = served.database.admin().await;
    let rows = admin
        .query(
            "select envelope from audit.outbox where org_id = $1::text::uuid order by id",
            &[&org.to_string()],
        )
        .await
        .unwrap();
    rows.iter()
        .map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap())
        .map(|event| (event.action.clone(), event.outcome(), event.reason.clone()))
        .collect()
}

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_needs_the_credential_and_the_permission_of_its_rpc() {
    let served = testkit::serve::serve(DOORED).await;
    for version in BOTH {
        let org = OrgId::new();
        let mut client = Client::connect(&served, version).await;
        let refused = |code: StatusCode, reason: &str| (code, reason.to_owned());
        let without = client.ask("GET", "/", "").await;
        assert_eq!(without, refused(StatusCode::UNAUTHORIZED, "CREDENTIAL_INVALID"));
        let made_up = client.ask("GET", "/", "v4.public.made-up").await;
        assert_eq!(made_up, refused(StatusCode::UNAUTHORIZED, "CREDENTIAL_INVALID"));
        assert!(trail(&served, org).await.is_empty());

        let other = token(&served, org, &["designs.design.read"]);
        let lacking = client.ask("GET", "/", &other).await;
        assert_eq!(lacking, refused(StatusCode::FORBIDDEN, "PERMISSION_MISSING"));
        let holder = token(&served, org, &[READ]);
        let not_theirs = client.ask("GET", "/not-yours", &holder).await;
        assert_eq!(not_theirs, refused(StatusCode::FORBIDDEN, "CALLER_NOT_ALLOWED"));
        let denied = |reason: &str| {
            let action = "terraform_state.ListStates".to_owned();
            (action, Outcome::Denied, reason.to_owned())
        };
        assert_eq!(
            trail(&served, org).await,
            [denied("PERMISSION_MISSING"), denied("CALLER_NOT_ALLOWED")]
        );

        for method in ["GET", "POST", "LOCK", "UNLOCK"] {
            let answer = client.ask(method, "/", &holder).await;
            assert_eq!(answer, (StatusCode::OK, format!("{method} in {org}: x")), "{version:?}");
        }
    }
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rpc_answers_for_is_unknown_and_a_panic_is_an_internal_error() {
    let served = testkit::serve::serve(DOORED).await;
    // A service's panics say where and never what; a test's say what failed.
    drop(std::panic::take_hook());
    let holder = token(&served, OrgId::new(), &[READ]);
    for version in BOTH {
        let mut client = Client::connect(&served, version).await;
        let unknown = client.ask("GET", "/elsewhere", &holder).await;
        assert_eq!(unknown, (StatusCode::NOT_FOUND, "METHOD_UNKNOWN".to_owned()));
        for path in ["/panic", "/public"] {
            let broken = client.ask("GET", path, &holder).await;
            assert_eq!(broken, (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL".to_owned()));
        }
        let mut asked = request("GET", "/", &holder, Body::empty());
        asked.headers_mut().insert("x-request-id", "mine-1".parse().unwrap());
        let (status, _, headers) = client.send(asked).await;
        assert_eq!(
            (status, headers["x-request-id"].as_bytes()),
            (StatusCode::OK, &b"mine-1"[..])
        );
    }
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_heard_by_a_caller_that_still_sends() {
    let served = testkit::serve::serve(DOORED).await;
    for version in BOTH {
        for _ in 0..20 {
            let mut client = Client::connect(&served, version).await;
            let asked = request("POST", "/", "", text(vec![b'x'; 8 << 20]));
            let (status, reason, _) = client.send(asked).await;
            assert_eq!(
                (status, reason.as_str()),
                (StatusCode::UNAUTHORIZED, "CREDENTIAL_INVALID")
            );
        }
    }
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_cancels_no_handler() {
    let served = testkit::serve::serve(DOORED).await;
    let holder = token(&served, OrgId::new(), &[READ]);
    let mut client = Client::connect(&served, Version::HTTP_11).await;
    let asking = tokio::spawn(async move { client.ask("GET", "/held", &holder).await });
    eventually(async || HOLDING.load(Ordering::SeqCst)).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    RELEASED.notify_one();
    eventually(async || HELD_TO_ITS_END.load(Ordering::SeqCst)).await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_calls_under_way_and_not_for_idle_connections() {
    let served = testkit::serve::serve(DOORED).await;
    let org = OrgId::new();
    let holder = token(&served, org, &[READ]);
    let silent = TcpStream::connect(served.running.doors[0]).await.unwrap();
    let mut idle = Vec::new();
    let mut busy = Vec::new();
    for version in BOTH {
        let mut client = Client::connect(&served, version).await;
        client.ask("GET", "/", &holder).await;
        idle.push(client);
        // The handler reads a body of which the rest is sent when the service is already told to stop.
        let (rest, parts) = tokio::sync::mpsc::channel(1);
        let body = Body::new(StreamBody::new(ReceiverStream::new(parts)));
        rest.send(Ok::<_, tonic::Status>(Frame::data(Bytes::from("begun, "))))
            .await
            .unwrap();
        let mut client = Client::connect(&served, version).await;
        let asked = request("POST", "/counted", &holder, body);
        busy.push((rest, tokio::spawn(async move { client.send(asked).await })));
    }
    let door = served.running.doors[0];
    eventually(async || BEGUN.load(Ordering::SeqCst) == BOTH.len()).await;
    let began = Instant::now();
    let stopping = tokio::spawn(served.running.stop());
    eventually(async || TcpStream::connect(door).await.is_err()).await;
    for (rest, answer) in busy {
        rest.send(Ok(Frame::data(Bytes::from("ended")))).await.unwrap();
        drop(rest);
        let (status, body, _) = answer.await.unwrap();
        assert_eq!((status, body), (StatusCode::OK, format!("POST in {org}: begun, ended")));
    }
    stopping.await.unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "the drain took {took:?}");
    drop((silent, idle));
}

/// Set while the work goes on.
static WORKING: AtomicBool = AtomicBool::new(false);
static SEEN: Mutex<Vec<&str>> = Mutex::new(Vec::new());

const WORKED: Service = Service {
    slice: &SLICE,
    configure: |_| {
        Some(Box::new(|_| {
            Box::pin(async {
                SEEN.lock().unwrap().push("built");
                Ok(ServiceParts::new()
                    .work(async { panic!("some work's bug") })
                    .work(async { SEEN.lock().unwrap().push("a task that ends") })
                    .work(async {
                        struct Over;
                        impl Drop for Over {
                            fn drop(&mut self) {
                                WORKING.store(false, Ordering::SeqCst);
                            }
                        }
                        let _over = Over;
                        WORKING.store(true, Ordering::SeqCst);
                        std::future::pending().await
                    }))
            })
        }))
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn work_begins_with_the_service_and_ends_with_it() {
    let served = testkit::serve::serve(WORKED).await;
    eventually(async || WORKING.load(Ordering::SeqCst)).await;
    eventually(async || *SEEN.lock().unwrap() == ["built", "a task that ends"]).await;
    served.running.stop().await;
    assert!(!WORKING.load(Ordering::SeqCst), "the work goes on without its service");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_whose_port_is_taken_is_a_problem_of_the_start() {
    let served = testkit::serve::serve(DOORED).await;
    let taken = served.running.doors[0].to_string();
    let mut env = served.env.clone();
    env.push(("TOY_LISTEN".to_owned(), taken.clone()));
    env.retain(|(name, _)| name != "DATABASE_URL");
    let problems = kit::service::start(DOORED, Env::of(env)).await.err().unwrap().0;
    assert_eq!(
        problems,
        [
            "DATABASE_URL is not set".to_owned(),
            format!("TOY_LISTEN: {taken} cannot be listened on (address in use)"),
        ]
    );
    served.running.stop().await;
}
