//! A service from its environment to its end: configuration, listeners, readiness, drain.

use std::{net::SocketAddr, panic::AssertUnwindSafe, process::ExitCode, sync::Arc, time::Duration};

use api::events::v1::event_log_service_server::EventLogServiceServer;
use futures_util::{FutureExt, future::join_all};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{server::NamedService as _, transport::server::TcpIncoming};
use tonic_health::ServingStatus;

mod readiness;

use super::{Stack, StackLayer, client::Peers, door, health};
use crate::{
    auth::{RemoteAuthority, authority::Authority, gate::Gate, jobs::RemoteJobs, revocation::Revocations},
    config::{Config, Env, Problems, SLICES},
    db::{self, Db, migrate},
    events::{
        self,
        follow::{Follower, Start},
        log::EventLog,
    },
    failpoint,
    rate::Limiter,
    redis::Redis,
    service::{Kit, Service},
    telemetry::{self, Metrics},
};

/// How long calls that are under way may take to finish when the service stops.
const DRAIN: Duration = Duration::from_secs(10);
/// EX_USAGE of sysexits.h: the configuration is wrong.
const WRONG_CONFIGURATION: u8 = 64;

/// The whole of a service's `main`: serves until SIGTERM or Ctrl-C, or migrates with the one argument `migrate`.
pub fn main(service: Service) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => runtime.block_on(serve(service)),
        ["migrate"] => runtime.block_on(migrate_slice(service)),
        _ => {
            eprintln!("usage: board3-{} [migrate]", service.slice.name.replace('_', "-"));
            ExitCode::from(WRONG_CONFIGURATION)
        }
    }
}

async fn serve(service: Service) -> ExitCode {
    let mut env = Env::process();
    if let Err(problem) = failpoint::check_env() {
        env.problem(problem);
    }
    // A port is taken and a signal handler set before anything can be asked of them.
    let stopped = stop_signal();
    let running = match start(service, env).await {
        Ok(running) => running,
        Err(problems) => {
            eprint!("{problems}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    telemetry::log_panics();
    tracing::info!(service = service.slice.name, grpc = %running.grpc, http = %running.http, doors = ?running.doors, "serving");
    stopped.await;
    running.stop().await;
    ExitCode::SUCCESS
}

async fn migrate_slice(service: Service) -> ExitCode {
    let mut env = Env::process();
    let Some(url) = env.required("DATABASE_MIGRATE_URL") else {
        eprintln!("DATABASE_MIGRATE_URL is not set");
        return ExitCode::from(WRONG_CONFIGURATION);
    };
    match migrate::up(&url, service.slice).await {
        Ok(applied) => {
            eprintln!("{}: {} migrations applied", service.slice.name, applied.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", service.slice.name);
            ExitCode::FAILURE
        }
    }
}

/// A service that serves.
pub struct Running {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where health and metrics are served.
    pub http: SocketAddr,
    /// Where its doors are, as they were added.
    pub doors: Vec<SocketAddr>,
    /// What the service runs with, for tests.
    pub kit: Kit,
    shutdown: CancellationToken,
    /// Cancelled after the drain, so that what the last calls committed is still announced.
    drained: CancellationToken,
    events: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    servers: Vec<JoinHandle<()>>,
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Running {
    /// Lets calls under way finish, at most 10 s, then stops everything.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let served = join_all(self.servers);
        if tokio::time::timeout(DRAIN, served).await.is_err() {
            tracing::warn!("calls were still under way after the drain");
        }
        self.drained.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(2), self.events).await;
        for task in &self.tasks {
            task.abort();
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), join_all(self.tasks)).await;
        if let Some(traces) = self.traces {
            let _ = tokio::task::spawn_blocking(move || traces.shutdown()).await;
        }
    }
}

/// Starts a service with an environment.
///
/// # Errors
/// Everything that is wrong with the configuration, at once.
pub async fn start(service: Service, mut env: Env) -> Result<Running, Problems> {
    let slice = service.slice.name;
    let config = Config::read(&mut env, slice);
    let build = (service.configure)(&mut env);
    // What can be tried is tried even where something else is wrong, so that all problems are told at once.
    let (_, grpc, http) = SLICES
        .iter()
        .find(|(name, _, _)| *name == slice)
        .copied()
        .unwrap_or((slice, 0, 0));
    let grpc = env.listen("BOARD3_GRPC_LISTEN", &format!("127.0.0.1:{grpc}"));
    let http = env.listen("BOARD3_HTTP_LISTEN", &format!("127.0.0.1:{http}"));
    let instance = reach_database(&mut env, "DATABASE_URL").await;
    let _ = reach_database(&mut env, "DATABASE_WORKER_URL").await;
    let redis = config.as_ref().and_then(|config| {
        let instance = config.instance.clone().or(instance).unwrap_or_default();
        Redis::connect(&config.redis_url, format!("board3.{instance}"))
            .map_err(|problem| env.problem(format!("REDIS_URL {problem}")))
            .ok()
    });
    let problems = env.take_problems();
    let (Some(config), Some(build), Some(grpc), Some(http), Some(redis), true) =
        (config, build, grpc, http, redis, problems.is_empty())
    else {
        return Err(Problems(problems));
    };

    // A service reaches itself where it listens, also on a port that the system chose.
    let mut config = config;
    let own = if grpc.address.ip().is_unspecified() {
        format!("127.0.0.1:{}", grpc.address.port())
    } else {
        grpc.address.to_string()
    };
    config.peers.insert(slice.to_owned(), format!("http://{own}"));

    let traces = telemetry::start(&config, slice);
    let metrics = Arc::new(Metrics::new());
    let db = Db::new(
        &config.database_url,
        config.database_connections,
        slice,
        config.ring.clone(),
        config.log_sql,
    )
    .noting(redis.clone());
    let worker = Db::new(
        &config.database_worker_url,
        6,
        slice,
        config.ring.clone(),
        config.log_sql,
    )
    .noting(redis.clone())
    .with_signal_of(&db);
    let shutdown = CancellationToken::new();
    let kit = Kit {
        stopping: shutdown.clone(),
        db: db.clone(),
        worker: worker.clone(),
        redis: redis.clone(),
        ring: config.ring.clone(),
        peers: Peers::new(&config, slice),
        metrics: metrics.clone(),
        config: Arc::new(config),
        consumed: Arc::default(),
    };
    let mut parts = build(kit.clone())
        .await
        .map_err(|error| Problems(vec![error.to_string()]))?;
    parts
        .routes
        .add_service(EventLogServiceServer::new(EventLog::new(worker.clone())));
    parts.names.push(EventLogServiceServer::<EventLog>::NAME);

    let authority: Arc<dyn Authority> = match parts.authority {
        Some(authority) => authority,
        None => Arc::new(RemoteAuthority::new(&kit.peers)),
    };
    let revocations = Arc::new(Revocations::new());
    let stack = Arc::new(Stack {
        gate: Gate::new(
            &kit.config,
            authority,
            Arc::new(RemoteJobs::new(&kit.peers)),
            revocations.clone(),
            db.clone(),
        ),
        limiter: Limiter::new(redis.clone()),
        rate_scale: kit.config.rate_scale,
        metrics: metrics.clone(),
        permits: Arc::new(Semaphore::new(kit.config.concurrency)),
    });
    expose(&metrics, &kit, &revocations);
    expose_keys(&metrics, &stack.gate);

    let readiness = health::Readiness::default();
    let (reporter, health_server) = tonic_health::server::health_reporter();
    for name in &parts.names {
        reporter.set_service_status(*name, ServingStatus::NotServing).await;
    }
    reporter
        .set_service_status("readiness", ServingStatus::NotServing)
        .await;
    reporter.set_service_status("liveness", ServingStatus::Serving).await;
    let whole = "the descriptors are our own and whole";
    parts
        .routes
        .add_service(health_server)
        .add_service(reflection(&parts.names).build_v1().expect(whole))
        .add_service(reflection(&parts.names).build_v1alpha().expect(whole));

    let mut tasks = vec![
        tokio::spawn({
            let stack = stack.clone();
            async move { stack.gate.keep_keys_fresh().await }
        }),
        tokio::spawn({
            let feed = Follower::new(
                redis.clone(),
                kit.peers.clone(),
                "identity",
                Start::Since(Revocations::since()),
            );
            async move { revocations.follow(feed).await }
        }),
        tokio::spawn(readiness::keep(
            service,
            kit.clone(),
            stack.clone(),
            readiness.clone(),
            reporter,
            parts.names,
            shutdown.clone(),
        )),
        tokio::spawn(db::requests::keep_pruned(worker)),
    ];
    tasks.extend(
        parts
            .work
            .into_iter()
            .map(|work| tokio::spawn(told_when_it_panics(work))),
    );

    let drained = CancellationToken::new();
    let events = tokio::spawn(events::run(kit.clone(), parts.consumers, drained.clone()));

    let (grpc_address, http_address) = (grpc.address, http.address);
    let incoming = TcpIncoming::from(grpc.inner).with_nodelay(Some(true));
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(1024)
        .layer(StackLayer(stack.clone()))
        .add_routes(parts.routes.routes().prepare())
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let router = health::router(slice, readiness, metrics);
    let stop_http = shutdown.clone().cancelled_owned();
    let mut servers = vec![
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(error = ?error, "the gRPC server ended");
            }
        }),
        tokio::spawn(async move {
            if let Err(error) = axum::serve(http.inner, router).with_graceful_shutdown(stop_http).await {
                tracing::error!(error = ?error, "the HTTP server ended");
            }
        }),
    ];
    let doors = parts.doors.iter().map(|(listener, _)| listener.address()).collect();
    for (listener, door) in parts.doors {
        servers.push(tokio::spawn(door::serve(
            listener,
            door,
            stack.clone(),
            shutdown.clone(),
        )));
    }
    Ok(Running {
        grpc: grpc_address,
        http: http_address,
        doors,
        kit,
        shutdown,
        drained,
        events,
        tasks,
        servers,
        traces,
    })
}

/// A service's work, which does not go silently when it panics.
async fn told_when_it_panics(work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        tracing::error!("work between calls panicked and is gone until the service starts again");
    }
}

/// Reaches the database once and reads the suite's instance id.
async fn reach_database(env: &mut Env, name: &str) -> Option<String> {
    let url = env.optional(name)?;
    let Ok(config) = url.parse::<tokio_postgres::Config>() else {
        env.problem(format!(
            "{name} must be a URL like postgresql://user@host:5432/database"
        ));
        return None;
    };
    // The driver's words may hold the URL's password; only the kind of failure is told.
    let reached = tokio::time::timeout(Duration::from_secs(3), config.connect(tokio_postgres::NoTls)).await;
    let client = match reached {
        Ok(Ok((client, connection))) => {
            tokio::spawn(connection);
            client
        }
        Ok(Err(error)) => {
            let why = error.code().map_or("no connection", |state| match state.code() {
                "28000" | "28P01" => "the login is refused",
                "3D000" => "there is no such database",
                _ => "the server refuses",
            });
            env.problem(format!("{name}: PostgreSQL cannot be reached ({why})"));
            return None;
        }
        Err(_) => {
            env.problem(format!("{name}: PostgreSQL cannot be reached (no answer in 3 s)"));
            return None;
        }
    };
    match client.query_one("select id from board3.instance", &[]).await {
        Ok(row) => Some(row.get(0)),
        Err(_) => {
            env.problem(format!(
                "{name}: the database is not prepared; run `board3 migrate` first"
            ));
            None
        }
    }
}

/// Figures that are read when they are asked for.
fn expose(metrics: &Metrics, kit: &Kit, revocations: &Arc<Revocations>) {
    for (name, help, read) in [
        (
            "pool_connections",
            "Open connections",
            (|s| f64::from(s.connections)) as fn(&crate::db::Statistics) -> f64,
        ),
        ("pool_idle", "Connections not in use", |s| f64::from(s.idle)),
        ("pool_checkouts", "Checkouts so far", |s| s.checkouts as f64),
        ("pool_waited", "Checkouts that waited", |s| s.waited as f64),
        ("pool_timed_out", "Checkouts that gave up", |s| s.timed_out as f64),
        ("pool_broken", "Connections closed as broken", |s| s.broken as f64),
    ] {
        let (db, worker) = (kit.db.clone(), kit.worker.clone());
        metrics.reading(name, help, move || {
            vec![
                ("pool=\"app\"".to_owned(), read(&db.statistics())),
                ("pool=\"worker\"".to_owned(), read(&worker.statistics())),
            ]
        });
    }
    events::expose(metrics);
    metrics.reading("cache", "Cache reads by what became of them", crate::cache::readings);
    metrics.reading(
        "statements",
        "SQL statements of this process",
        crate::db::instrument::readings,
    );
    let revocations = revocations.clone();
    metrics.reading(
        "revocation_lag_seconds",
        "Time since the revocation feed was last known to be complete",
        move || vec![(String::new(), revocations.lag().map_or(-1.0, |lag| lag.as_secs_f64()))],
    );
}

fn expose_keys(metrics: &Metrics, gate: &Gate) {
    let figures = gate.keys().figures();
    metrics.reading("key_sets", "Sets of signing keys: fetched and why, or refused", {
        let figures = figures.clone();
        move || figures.fetched()
    });
    metrics.reading(
        "key_set_version",
        "Version of the set of signing keys in force",
        move || vec![(String::new(), figures.version() as f64)],
    );
}

/// Reflection over exactly the services that are served.
fn reflection(names: &[&'static str]) -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(api::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.reflection.v1.ServerReflection")
        .with_service_name("grpc.reflection.v1alpha.ServerReflection")
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // What errors carry, so that grpcurl and buf can print it.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    names
        .iter()
        .fold(builder, |builder, name| builder.with_service_name(*name))
}

/// Completes at SIGTERM or Ctrl-C; the handlers are set at once.
fn stop_signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM can be set");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT can be set");
    async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
