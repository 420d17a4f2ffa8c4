//! Between the socket and a handler: the one stack that every call passes, outermost first.
//!
//! Request id and trace · span, access log, metrics · panics · load shed · rate by address · authenticate ·
//! rate by caller and class · authorize · run with a deadline.
//! Nothing else in the suite logs a failed call, opens an RPC span or picks a status code.

mod aged;
mod arrival;
pub mod client;
mod health;
pub mod server;

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use api::policy::{self, RateClass};
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response};
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tracing::Instrument;

use crate::{
    auth::{gate::Caller, gate::Gate, scope::Call},
    error::{Error, Reason, Result},
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
    pub(crate) gate: Gate,
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
        // A task of its own: a client that hangs up cancels no handler.
        let task = tokio::spawn(stack.serve(inner, request));
        Box::pin(async move {
            match task.await {
                Ok(response) => Ok(response),
                Err(failure) => Ok(Error::internal(failure).to_status(None).into_http()),
            }
        })
    }
}

impl Stack {
    /// One call, from its arrival to its answer.
    async fn serve<S>(self: Arc<Self>, inner: S, request: Request<Body>) -> Response<Body>
    where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let started = Instant::now();
        let Some(method) = policy::find(request.uri().path()) else {
            return self.unknown(&request);
        };
        let call = Arc::new(arrival::call(method, &request));
        let span = arrival::span(&call, request.headers());
        let outcome = CURRENT
            .scope(call.clone(), self.guarded(inner, request, call.clone()))
            .instrument(span.clone())
            .await;
        let refused = outcome.as_ref().ok().and_then(refusal);
        let (mut response, code) = match (outcome, refused) {
            (Ok(response), None) => (response, Code::Ok),
            (Err(error), _) => self.failed(&call, &error, &span),
            (Ok(_), Some(status)) => match ours(&status) {
                Some(error) => self.failed(&call, error, &span),
                None => self.failed(&call, &foreign(&status), &span),
            },
        };
        let took = started.elapsed();
        self.metrics.rpc(method, code, took);
        if code == Code::Ok {
            let took_ms = took.as_millis() as u64;
            // Services ask one another all the time; what they ask is in the metrics.
            span.in_scope(|| match method.rate_class {
                RateClass::Peer => tracing::debug!(code = "OK", took_ms, "call"),
                _ => tracing::info!(code = "OK", took_ms, "call"),
            });
        }
        if let Ok(id) = HeaderValue::from_str(&call.request_id) {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }

    /// What can fail before the handler, and the handler itself; a panic is a fault of ours like any other.
    async fn guarded<S>(&self, inner: S, request: Request<Body>, call: Arc<Call>) -> Result<Response<Body>>
    where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        AssertUnwindSafe(self.admitted_and_run(inner, request, call))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(Error::internal("the handler panicked")))
    }

    async fn admitted_and_run<S>(
        &self,
        mut inner: S,
        mut request: Request<Body>,
        call: Arc<Call>,
    ) -> Result<Response<Body>>
    where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let deadline = tokio::time::Instant::from_std(call.deadline);
        let run = async {
            let _permit = self.permits.clone().try_acquire_owned().map_err(|_| {
                Error::new(Reason::Overloaded, "the service carries as many calls as it can")
                    .retry_after(Duration::from_secs(1))
            })?;
            let bearer = arrival::bearer(&request).map(|credential| credential.map(str::to_owned));
            let caller = self.caller(bearer, &call).await?;
            self.rate_by_caller(&caller, &call).await?;
            let scope = self.gate.admit(caller, call.clone()).await?;
            let who = scope.tenancy();
            request.extensions_mut().insert(scope);
            failpoint::hit("rpc.before_handler").await?;
            let Ok(response) = inner.call(request).await;
            if let Some(status) = refusal(&response).filter(|status| status.code() == Code::PermissionDenied)
                && let Some(error) = ours(&status)
            {
                self.gate.record_denial(who, call.clone(), error).await;
            }
            Ok::<_, Error>(response)
        };
        let response = tokio::time::timeout_at(deadline, run)
            .await
            .map_err(|_| Error::new(Reason::DeadlineExceeded, "the call did not finish in its time"))??;
        Ok(if call.method.streams {
            aged::bounded(response)
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

    /// The answer of a failed call, logged once: faults of ours as errors, broken dependencies as warnings.
    fn failed(&self, call: &Call, error: &Error, span: &tracing::Span) -> (Response<Body>, Code) {
        let code = error.code();
        let reason = error.reason_name();
        span.in_scope(|| match code {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                tracing::error!(?code, reason, error = ?error, "call failed")
            }
            Code::Unavailable => tracing::warn!(?code, reason, error = ?error, "call failed"),
            _ => tracing::info!(?code, reason, "call refused"),
        });
        let status = error.to_status_with(Some(&call.request_id), call.request_id_violation());
        (status.into_http(), code)
    }

    fn unknown(&self, request: &Request<Body>) -> Response<Body> {
        let error = Error::new(Reason::MethodUnknown, "no such RPC here");
        let id = arrival::request_id(request.headers());
        let mut response = error.to_status(Some(&id)).into_http();
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-request-id", id);
        }
        response
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
