//! The runner as a whole: it registers, and each of its slots takes one stage after the other.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use api::pipelines::v1::{AcquireRequest, AcquireResponse, RegisterRequest};
use tokio::{
    sync::RwLock,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use uuid::Uuid;

use crate::{
    client::{Backoff, Client, Refusal, Trace},
    config::{Config, Work},
    directory::Directory,
    health::Health,
    job, terraform,
};

/// How long pipelines may wait for a stage.
const WAIT: prost_types::Duration = prost_types::Duration { seconds: 5, nanos: 0 };

/// How long a question may go on once the runner is stopped.
const LAST: Duration = Duration::from_secs(5);

/// What all slots share.
pub(crate) struct Runner {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) stop: CancellationToken,
    id: RwLock<String>,
    health: Health,
}

/// Works until it is stopped, and then until what it has begun is reported.
pub async fn run(config: Config, stop: CancellationToken) {
    let Some(client) = Client::new(&config) else {
        tracing::error!("the API key cannot stand in a header");
        return;
    };
    let (health, serving) = Health::serve(&config.http).await;
    Directory::tell_of_others(config.work.path());
    let runner = Arc::new(Runner {
        config,
        client,
        stop,
        id: RwLock::default(),
        health,
    });
    tracing::info!(runner = runner.config.name, slots = runner.config.slots, "working");
    tokio::select! {
        () = runner.register() => {}
        () = runner.stop.cancelled() => {}
    }
    let mut slots = JoinSet::new();
    for _ in 0..runner.config.slots {
        slots.spawn(runner.clone().slot());
    }
    while let Some(ended) = slots.join_next().await {
        if ended.is_err() && !runner.stop.is_cancelled() {
            tracing::error!("a slot panicked; another takes its place");
            slots.spawn(runner.clone().slot());
        }
    }
    drop(slots);
    runner.health.ready(false);
    serving.abort();
    if let Ok(runner) = Arc::try_unwrap(runner)
        && let Work::Temporary(dir) = runner.config.work
        && std::fs::read_dir(dir.path()).is_ok_and(|mut entries| entries.next().is_some())
    {
        let kept = dir.keep();
        tracing::warn!(directory = %kept.display(), "the work directory is kept");
    }
}

impl Runner {
    /// Makes itself known; tries for ever.
    async fn register(&self) {
        let request = RegisterRequest {
            name: self.config.name.clone(),
            terraform_version: terraform::version(&self.config).await,
            request_id: Uuid::now_v7().to_string(),
        };
        if request.terraform_version.is_empty() {
            tracing::warn!(
                terraform = self.config.terraform,
                "there is no terraform; stages will end with TOOL_MISSING"
            );
        }
        let mut soon = Backoff::up_to(Duration::from_secs(3));
        let mut late = Backoff::up_to(Duration::from_secs(30));
        loop {
            let refusal = match self.client.register(Trace::new(), request.clone()).await {
                Ok(answer) => {
                    let id = answer.runner.unwrap_or_default().id;
                    tracing::info!(id, terraform = request.terraform_version, "registered");
                    *self.id.write().await = id;
                    return;
                }
                Err(refusal) => refusal,
            };
            self.health.ready(false);
            if refusal.unwelcome() || refusal.definite() {
                tracing::error!(
                    refusal = refusal.told(),
                    "the runner is refused: BOARD3_RUNNER_API_KEY must be an API key that may pipelines.runner.work"
                );
                sleep(late.after(&refusal)).await;
            } else {
                tracing::warn!(refusal = refusal.told(), "pipelines cannot be reached");
                sleep(soon.after(&refusal)).await;
            }
        }
    }

    /// Takes stages, one at a time, until the runner stops.
    async fn slot(self: Arc<Self>) {
        let mut backoff = Backoff::up_to(Duration::from_secs(2));
        // The first question does not wait, so that a runner is soon known to be ready.
        let mut answered = false;
        while !self.stop.is_cancelled() {
            let sent = Instant::now();
            let request = AcquireRequest {
                runner_id: self.id.read().await.clone(),
                wait: answered.then_some(WAIT),
            };
            let mut asking = pin!(self.client.acquire(Trace::new(), request));
            let answer = tokio::select! {
                answer = &mut asking => answer,
                () = self.stop.cancelled() => return last(asking).await,
            };
            let rest = match answer {
                Ok(answer) => {
                    self.health.ready(true);
                    backoff = Backoff::up_to(Duration::from_secs(2));
                    let waited = std::mem::replace(&mut answered, true);
                    match answer.lease {
                        Some(lease) => {
                            job::work(&self, lease, sent).await;
                            continue;
                        }
                        // A service that does not wait is not asked without pause.
                        None if waited && sent.elapsed() < Duration::from_millis(500) => Duration::from_millis(500),
                        None => continue,
                    }
                }
                Err(refusal) => {
                    self.health.ready(false);
                    answered = false;
                    tracing::warn!(refusal = refusal.told(), "no stage can be taken");
                    if refusal.code == Code::NotFound {
                        tokio::select! {
                            () = self.register() => {}
                            () = self.stop.cancelled() => {}
                        }
                    }
                    backoff.after(&refusal)
                }
            };
            tokio::select! {
                () = sleep(rest) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}

/// Hears the end of a question that was asked before the runner was stopped; what it brings is not begun.
async fn last(asking: Pin<&mut impl Future<Output = Result<AcquireResponse, Refusal>>>) {
    if let Ok(Ok(AcquireResponse { lease: Some(lease) })) = timeout(LAST, asking).await {
        tracing::warn!(
            lease = lease.id,
            stage = lease.stage_name,
            "the runner is stopped: a stage that was handed out is not begun, its lease runs out"
        );
    }
}
