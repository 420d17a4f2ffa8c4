//! What a service is made of, and what it is given to run with.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    server::NamedService,
    service::{Routes, RoutesBuilder},
};
use tower::Service as TowerService;

pub use crate::rpc::server::{Running, main, start};
use crate::{
    auth::{authority::Authority, scope::WorkerScope},
    config::{Config, Env, Listener},
    crypto::KeyRing,
    db::{Db, migrate::Slice},
    error::Result,
    events::consumer::Consumer,
    redis::Redis,
    rpc::{Door, client::Peers},
    telemetry::Metrics,
};

/// A service of the suite: its slice and how it is put together.
#[derive(Clone, Copy)]
pub struct Service {
    /// Its name, schema and migrations.
    pub slice: &'static Slice,
    /// Reads the service's own variables; problems are noted in the environment, and then nothing is built.
    pub configure: fn(&mut Env) -> Option<Build>,
}

/// Puts the service together once everything it needs is there.
pub type Build = Box<dyn FnOnce(Kit) -> BoxFuture<'static, Result<Parts>> + Send>;

/// What a service is given. Cheap to clone.
#[derive(Clone)]
pub struct Kit {
    /// PostgreSQL as the app role: what RPCs use.
    pub db: Db,
    /// PostgreSQL as the worker role: what runs between calls.
    pub worker: Db,
    /// Redis, with this suite's prefix.
    pub redis: Redis,
    /// Keys for sealing.
    pub ring: Arc<KeyRing>,
    /// Channels to the other services.
    pub peers: Peers,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// The common configuration.
    pub config: Arc<Config>,
    /// Cancelled when the service begins to stop: whoever waits for something on a caller's behalf answers then.
    pub stopping: CancellationToken,
    /// Who applies whose events here: consumers and sources, once they run.
    pub(crate) consumed: Arc<OnceLock<Vec<(&'static str, &'static str)>>>,
}

impl Kit {
    /// The scope of what the service does between calls; identity's gate asks its tables in it.
    pub fn scope(&self) -> WorkerScope {
        WorkerScope { slice: self.db.slice() }
    }
}

/// What a service consists of.
pub struct Parts {
    pub(crate) routes: RoutesBuilder,
    pub(crate) names: Vec<&'static str>,
    pub(crate) consumers: Vec<Arc<dyn Consumer>>,
    pub(crate) authority: Option<Arc<dyn Authority>>,
    pub(crate) doors: Vec<(Listener, Arc<dyn Door>)>,
    pub(crate) work: Vec<BoxFuture<'static, ()>>,
}

impl Default for Parts {
    fn default() -> Self {
        Self::new()
    }
}

impl Parts {
    /// Nothing yet.
    pub fn new() -> Self {
        Parts {
            routes: Routes::builder(),
            names: Vec::new(),
            consumers: Vec::new(),
            authority: None,
            doors: Vec::new(),
            work: Vec::new(),
        }
    }

    /// Serves a generated gRPC server.
    pub fn serve<S>(mut self, server: S) -> Self
    where
        S: TowerService<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(server);
        self
    }

    /// Applies other services' events.
    pub fn consume(mut self, consumer: impl Consumer) -> Self {
        self.consumers.push(Arc::new(consumer));
        self
    }

    /// Serves another protocol at a port of its own, behind the same stack as gRPC.
    pub fn door(mut self, listener: Listener, door: impl Door) -> Self {
        self.doors.push((listener, Arc::new(door)));
        self
    }

    /// Works between calls: starts once the service is built, and is dropped at its next await when the service has
    /// drained. One that panics is logged and gone, so it catches what may fail itself and goes on.
    pub fn work(mut self, work: impl Future<Output = ()> + Send + 'static) -> Self {
        self.work.push(Box::pin(work));
        self
    }

    /// Answers the gate's questions itself (identity); every other service asks identity.
    pub fn authority(mut self, authority: impl Authority) -> Self {
        self.authority = Some(Arc::new(authority));
        self
    }
}
