//! Doors: other protocols over HTTP/1.1 and HTTP/2, in the clear or over TLS, whose requests pass the same stack as gRPC.
//!
//! A door says which RPC's policy a request is under, and never decides whether it may pass.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use api::policy::Method;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    body::Body,
    transport::server::{Connected as _, TcpConnectInfo},
};

use super::{Failure, Protocol, Stack, aged::Ending, arrival};
use crate::{
    auth::scope::{OrgScope, Scope},
    config::{Listener, Tls},
    error::{Error, Result, Violation},
    failpoint,
};

/// How long a connection may take for a request's head, and stay without a request.
const HEAD: Duration = Duration::from_secs(30);
/// How long, and how far, what no handler reads of a request is read.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 16 << 20;

/// Another protocol than gRPC, at a port of its own.
///
/// Request id, trace, access log, metrics, load, rates, authentication, permission, deadline and denials in the trail
/// are the stack's, by the policy of the RPC that [`Door::method`] names, as for a gRPC call of it.
/// A request has 60 s until its response begins, and the response 10 minutes. Its body is as long as the caller makes
/// it: [`Door::serve`] bounds what it reads. A body that breaks off is an error of its reader, and never its end.
#[async_trait]
pub trait Door: Send + Sync + 'static {
    /// The RPC whose policy a request is under, one of an organization; `None` is refused with METHOD_UNKNOWN.
    fn method(&self, parts: &Parts) -> Option<&'static Method>;

    /// The access token, API key or job credential that the headers hold, for example as basic auth's password.
    ///
    /// # Errors
    /// CREDENTIAL_INVALID for headers that make no sense.
    fn credential(&self, headers: &HeaderMap) -> Result<Option<String>>;

    /// Answers an admitted request. Answers that are failures are errors, so that log, metrics and trail know of them.
    async fn serve(&self, scope: OrgScope, request: Request<Body>) -> Result<Response<Body>>;

    /// How a failure looks in this protocol, the stack's and its own alike. The stack adds `x-request-id`.
    fn refuse(&self, error: &Error) -> Response<Body>;
}

#[derive(Clone)]
struct Behind(Arc<dyn Door>);

impl Protocol for Behind {
    const NAME: &'static str = "http";
    const ENDING: Ending = Ending::Broken;

    fn method(&self, parts: &Parts) -> Option<&'static Method> {
        self.0.method(parts)
    }

    fn credential(&self, headers: &HeaderMap) -> Result<Option<String>> {
        self.0.credential(headers)
    }

    fn time_allowed(&self, _: &HeaderMap) -> Duration {
        arrival::LONGEST_DEADLINE
    }

    fn refuse(&self, error: &Error, _: &str, _: Option<Violation>) -> Response<Body> {
        self.0.refuse(error)
    }
}

/// The body of a request over HTTP/1.1, of which a handler's unread rest is read too, to some bound.
///
/// hyper closes a connection with an unread rest, and a caller that still sends would meet that instead of its answer.
struct Lingering(Option<Incoming>);

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.is_end_stream() || failpoint::without("door_linger") {
            return;
        }
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(LINGER, async {
                let mut rest = Limited::new(rest, LINGER_BYTES);
                while let Some(Ok(_)) = rest.frame().await {}
            }));
        }
    }
}

/// Serves a door until the service stops; then idle connections are closed and busy ones after their answer.
pub(super) async fn serve(listener: Listener, door: Arc<dyn Door>, stack: Arc<Stack>, shutdown: CancellationToken) {
    let Listener { inner, tls, .. } = listener;
    let mut listener = inner;
    let connections = TaskTracker::new();
    loop {
        let (stream, _) = tokio::select! {
            () = shutdown.cancelled() => break,
            // Waits where the process has no descriptor left, and goes on.
            accepted = axum::serve::Listener::accept(&mut listener) => accepted,
        };
        connections.spawn(connected(
            stream,
            tls.clone(),
            Behind(door.clone()),
            stack.clone(),
            shutdown.clone(),
        ));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connected(
    stream: TcpStream,
    tls: Option<Tls>,
    behind: Behind,
    stack: Arc<Stack>,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    // The server's own timer begins with a request's first byte.
    let speaks = tokio::time::timeout(HEAD, stream.readable());
    tokio::select! {
        spoken = speaks => if !matches!(spoken, Ok(Ok(()))) { return },
        () = shutdown.cancelled() => return,
    }
    let caller = stream.connect_info();
    let Some(Tls(acceptor)) = tls else {
        return spoken(stream, caller, behind, stack, shutdown).await;
    };
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(HEAD, acceptor.accept(stream)) => greeted,
        () = shutdown.cancelled() => return,
    };
    match greeted {
        Ok(Ok(stream)) => spoken(stream, caller, behind, stack, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS connection was not made"),
        Err(_) => {}
    }
}

/// A connection on which requests may come.
async fn spoken(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: TcpConnectInfo,
    behind: Behind,
    stack: Arc<Stack>,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let lingers = request.version() < Version::HTTP_2;
        let mut request = request.map(|body| match lingers {
            true => Body::new(Lingering(Some(body))),
            false => Body::new(body),
        });
        request.extensions_mut().insert(caller.clone());
        let (stack, behind) = (stack.clone(), behind.clone());
        async move {
            let door = behind.0.clone();
            let run = async move |scope, request| match scope {
                Scope::Org(scope) => door.serve(scope, request).await.map_err(Failure::from),
                Scope::Public(_) | Scope::User(_) | Scope::Peer(_) => {
                    Err(Error::internal("a door serves RPCs of an organization alone").into())
                }
            };
            Ok::<_, Infallible>(stack.answer(behind, request, run).await)
        }
    });
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(Duration::from_secs(10))
        .max_concurrent_streams(1024);
    let mut served = pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}
