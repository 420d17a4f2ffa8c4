//! Between the socket and a handler: the one stack that every call passes, outermost first.
//!
//! Request id and trace · span, access log, metrics · panics · load shed · rate by address · authenticate ·
//! rate by caller and class · authorize · run with a deadline.
//! A [`Door`] lets another protocol in through the same stack; [`Protocol`] is all in which the two differ.
//! Nothing else in the suite logs a failed call, opens an RPC span or picks a status code.

mod aged;
mod arrival;
pub mod client;
mod door;
mod health;
pub mod server;
mod whole;

pub use door::Door;

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use api::policy::{self, Method, RateClass};
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Request, Response, request::Parts};
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tracing::Instrument;

use crate::{
    auth::{
        gate::{Caller, Gate},
        scope::{Call, Scope},
    },
    error::{Error, Reason, Result, Violation},
    failpoint,
    rate::{Limit, Limiter},
    telemetry::Metrics,
};

/// Health and reflection need no token and leave no trace.
const EXEMPT: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

tokio::task_local! {
    /// The call that a task works for.
    pub(crate) static CURRENT: Arc<Call>;
}

/// What the stack needs; one per server.
pub(crate) struct Stack {
    pub(crate) gate: Arc<Gate>,
    pub(crate) limiter: Limiter,
    pub(crate) rate_scale: u32,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) permits: Arc<Semaphore>,
}

/// The stack as a tower layer.
#[derive(Clone)]
pub(crate) struct StackLayer(pub(crate) Arc<Stack>);

/// The stack around the routes.
#[derive(Clone)]
pub(crate) struct Stacked<S> {
    stack: Arc<Stack>,
    inner: S,
}

impl<S> tower::Layer<S> for StackLayer {
    type Service = Stacked<S>;
    fn layer(&self, inner: S) -> Stacked<S> {
        Stacked {
            stack: self.0.clone(),
            inner,
        }
    }
}

impl<S> tower::Service<Request<Body>> for Stacked<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        if EXEMPT.iter().any(|service| request.uri().path().starts_with(service)) {
            return Box::pin(inner.call(request));
        }
        let stack = self.stack.clone();
        Box::pin(async move {
            let run = async move |scope, mut request: Request<Body>| {
                request.extensions_mut().insert::<Scope>(scope);
                let Ok(response) = inner.call(request).await;
                match refusal(&response) {
                    None => Ok(response),
                    Some(status) => Err(Failure::from(status)),
                }
            };
            Ok(stack.answer(Grpc, request, run).await)
        })
    }
}

/// In what a protocol differs from the others; all else is the stack's.
trait Protocol: Clone + Send + Sync + 'static {
    /// As spans have it.
    const NAME: &'static str;
    /// How a stream that has reached its age is cut.
    const ENDING: aged::Ending;
    /// The RPC whose policy a request is under.
    fn method(&self, parts: &Parts) -> Option<&'static Method>;
    /// The caller's credential.
    fn credential(&self, headers: &HeaderMap) -> Result<Option<String>>;
    /// How long a call may take until its response begins.
    fn time_allowed(&self, headers: &HeaderMap) -> Duration;
    /// How a failure is answered; an invalid request also with what was found wrong outside of the handler.
    fn refuse(&self, error: &Error, request_id: &str, also: Option<Violation>) -> Response<Body>;
}

#[derive(Clone, Copy)]
struct Grpc;

impl Protocol for Grpc {
    const NAME: &'static str = "grpc";
    const ENDING: aged::Ending = aged::Ending::Trailers;

    fn method(&self, parts: &Parts) -> Option<&'static Method> {
        policy::find(parts.uri.path())
    }

    fn credential(&self, headers: &HeaderMap) -> Result<Option<String>> {
        Ok(arrival::bearer(headers)?.map(str::to_owned))
    }

    fn time_allowed(&self, headers: &HeaderMap) -> Duration {
        arrival::time_allowed(headers)
    }

    fn refuse(&self, error: &Error, request_id: &str, also: Option<Violation>) -> Response<Body> {
        error.to_status_with(Some(request_id), also).into_http()
    }
}

/// Why a call failed: an error of ours, at hand or as the source of a handler's status.
enum Failure {
    Ours(Error),
    Told(Status),
}

impl Failure {
    fn error(&self) -> &Error {
        match self {
            Failure::Ours(error) => error,
            Failure::Told(status) => ours(status).expect("only a status with an error of ours is told"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Ours(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if ours(&status).is_some() {
            Failure::Told(status)
        } else {
            Failure::Ours(foreign(&status))
        }
    }
}

type Answer = Result<Response<Body>, Failure>;

impl Stack {
    /// One call, from its arrival to its answer; `run` is what the stack is around.
    async fn answer<P, R, F>(self: Arc<Self>, protocol: P, request: Request<Body>, run: R) -> Response<Body>
    where
        P: Protocol,
        R: FnOnce(Scope, Request<Body>) -> F + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let id = arrival::request_id(request.headers());
        // A task of its own: a client that hangs up cancels no handler.
        let task = tokio::spawn(self.serve(protocol.clone(), request, id.clone(), run));
        let mut response = task
            .await
            .unwrap_or_else(|failure| protocol.refuse(&Error::internal(failure), &id, None));
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }

    async fn serve<P, R, F>(self: Arc<Self>, protocol: P, request: Request<Body>, id: String, run: R) -> Response<Body>
    where
        P: Protocol,
        R: FnOnce(Scope, Request<Body>) -> F + Send,
        F: Future<Output = Answer> + Send,
    {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let Some(method) = protocol.method(&parts) else {
            return protocol.refuse(&Error::new(Reason::MethodUnknown, "no such RPC here"), &id, None);
        };
        let allowed = protocol.time_allowed(&parts.headers);
        let call = Arc::new(arrival::call(method, id, &parts, allowed));
        let span = arrival::span(&call, &parts.headers, P::NAME);
        let request = Request::from_parts(parts, whole::or_broken(body));
        // What can fail before the handler, and the handler itself; a panic is a fault of ours like any other.
        let guarded = AssertUnwindSafe(self.admitted_and_run(&protocol, request, call.clone(), run)).catch_unwind();
        let outcome = CURRENT
            .scope(call.clone(), guarded)
            .instrument(span.clone())
            .await
            .unwrap_or_else(|_| Err(Error::internal("the handler panicked").into()));
        let took = started.elapsed();
        let (response, code) = match outcome {
            Ok(response) => (response, Code::Ok),
            Err(failure) => {
                let error = failure.error();
                span.in_scope(|| log_failed(error));
                let response = protocol.refuse(error, &call.request_id, call.request_id_violation());
                (response, error.code())
            }
        };
        self.metrics.rpc(method, code, took);
        if code == Code::Ok {
            let took_ms = took.as_millis() as u64;
            // Services ask one another all the time; what they ask is in the metrics.
            span.in_scope(|| match method.rate_class {
                RateClass::Peer => tracing::debug!(code = "OK", took_ms, "call"),
                _ => tracing::info!(code = "OK", took_ms, "call"),
            });
        }
        response
    }

    async fn admitted_and_run<P, R, F>(&self, protocol: &P, request: Request<Body>, call: Arc<Call>, run: R) -> Answer
    where
        P: Protocol,
        R: FnOnce(Scope, Request<Body>) -> F + Send,
        F: Future<Output = Answer> + Send,
    {
        let deadline = tokio::time::Instant::from_std(call.deadline);
        let run = async {
            let _permit = self.permits.clone().try_acquire_owned().map_err(|_| {
                Error::new(Reason::Overloaded, "the service carries as many calls as it can")
                    .retry_after(Duration::from_secs(1))
            })?;
            let caller = self.caller(protocol.credential(request.headers()), &call).await?;
            self.rate_by_caller(&caller, &call).await?;
            let scope = self.gate.admit(caller, call.clone()).await?;
            let who = scope.tenancy();
            failpoint::hit("rpc.before_handler").await?;
            let answer = run(scope, request).await;
            if let Err(failure) = &answer
                && failure.error().code() == Code::PermissionDenied
            {
                self.gate.record_denial(who, call.clone(), failure.error()).await;
            }
            answer
        };
        let response = tokio::time::timeout_at(deadline, run)
            .await
            .map_err(|_| Error::new(Reason::DeadlineExceeded, "the call did not finish in its time"))??;
        Ok(if call.method.streams {
            aged::bounded(response, P::ENDING)
        } else {
            response
        })
    }

    /// Who calls; what is found out about that is paid for by the address, unless it is a peer's: they are few.
    async fn caller(&self, bearer: Result<Option<String>>, call: &Call) -> Result<Caller> {
        let credential = bearer.as_ref().ok().and_then(|credential| credential.as_deref());
        if let Some(slice) = self.gate.recognize_peer(credential) {
            return Ok(Caller::Peer(slice));
        }
        self.rate_by_address(call, call.method.rate_class).await?;
        if call.method.scope == policy::Scope::Public {
            // A credential plays no part here, not even one that has ended.
            return Ok(Caller::Nobody);
        }
        let charge = async || self.rate_by_address(call, RateClass::Authentication).await;
        self.gate.authenticate(bearer?.as_deref(), charge).await
    }

    async fn rate_by_address(&self, call: &Call, class: RateClass) -> Result<()> {
        let limit = match class {
            RateClass::Authentication => self.limit(120),
            RateClass::Read | RateClass::Write | RateClass::Peer => self.limit(60_000),
        };
        let key = format!("address:{}:{class:?}", call.caller_address);
        self.limiter.check(&[(key, limit)]).await.into_result()
    }

    async fn rate_by_caller(&self, caller: &Caller, call: &Call) -> Result<()> {
        let per_minute = match call.method.rate_class {
            RateClass::Read => 6_000,
            RateClass::Write => 3_000,
            RateClass::Authentication | RateClass::Peer => return Ok(()),
        };
        let Some(principal) = caller.counted() else {
            return Ok(());
        };
        let key = format!("caller:{principal}:{:?}", call.method.rate_class);
        self.limiter.check(&[(key, self.limit(per_minute))]).await.into_result()
    }

    fn limit(&self, per_minute: u32) -> Limit {
        let per_minute = per_minute.saturating_mul(self.rate_scale);
        Limit {
            per_minute,
            burst: (per_minute / 6).max(20),
        }
    }
}

/// A failed call is logged once: faults of ours as errors, broken dependencies as warnings.
fn log_failed(error: &Error) {
    let (code, reason) = (error.code(), error.reason_name());
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss => {
            tracing::error!(?code, reason, error = ?error, "call failed")
        }
        Code::Unavailable => tracing::warn!(?code, reason, error = ?error, "call failed"),
        _ => tracing::info!(?code, reason, "call refused"),
    }
}

/// The status of a response that is none but a failure.
fn refusal(response: &Response<Body>) -> Option<Status> {
    let status = response.extensions().get::<Status>()?;
    (status.code() != Code::Ok).then(|| status.clone())
}

/// The handler's error behind a status.
fn ours(status: &Status) -> Option<&Error> {
    use std::error::Error as _;
    status.source().and_then(|source| source.downcast_ref::<Error>())
}

/// A status that tonic made before a handler was reached, as an error of ours.
fn foreign(status: &Status) -> Error {
    match status.code() {
        Code::Unimplemented => Error::new(
            Reason::MethodUnknown,
            "no such RPC here, or an encoding that is not supported",
        ),
        Code::OutOfRange | Code::ResourceExhausted => {
            Error::new(Reason::MessageTooLarge, "the message is larger than this RPC takes")
                .with("limit_bytes", limit_told(status.message()))
        }
        Code::Internal | Code::InvalidArgument => Error::violation("message", "is missing or cannot be decoded"),
        _ => Error::internal(status.clone()),
    }
}

/// tonic tells the limit only in words: "… the limit is: 65536 bytes".
fn limit_told(message: &str) -> String {
    message
        .rsplit("limit is: ")
        .next()
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect()
}
