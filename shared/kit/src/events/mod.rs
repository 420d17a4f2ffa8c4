//! Events between the slices: written with the change, put in order by one relay, announced over Redis, and
//! fetched from the producer's log whenever an announcement was missed.
//!
//! Pub/sub carries speed; positions carry truth: visible effects happen exactly once.

mod apply;
mod ask;
mod backoff;
mod caught_up;
pub mod consumer;
mod figures;
pub mod follow;
mod listen;
pub mod log;
pub mod relay;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use apply::apply;
pub(crate) use figures::expose;
pub use figures::{Sample, stats};

use crate::{failpoint, redis::Redis, service::Kit};
use consumer::Consumer;
use relay::Relay;

/// A panicked task starts again after this.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);

/// Runs the slice's relay, and each consumer over each of its sources, until `shutdown` and then to the end of
/// what is at work. Every replica runs it; what must happen once is fenced in the database.
pub async fn run(kit: Kit, consumers: Vec<Arc<dyn Consumer>>, shutdown: CancellationToken) {
    let _ = kit.consumed.set(caught_up::pairs(&consumers));
    let mut tasks = JoinSet::new();
    let (worker, redis, stop) = (kit.worker.clone(), kit.redis.clone(), shutdown.clone());
    tasks.spawn(kept_running("relay", shutdown.clone(), move || {
        Relay::new(worker.clone(), redis.clone()).run(stop.clone())
    }));
    for consumer in consumers {
        for source in consumer.sources() {
            let (kit, consumer, stop) = (kit.clone(), consumer.clone(), shutdown.clone());
            tasks.spawn(kept_running(consumer.name(), shutdown.clone(), move || {
                apply(
                    kit.worker.clone(),
                    kit.redis.clone(),
                    kit.peers.clone(),
                    consumer.clone(),
                    source,
                    stop.clone(),
                )
            }));
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// The channel on which a slice announces its events.
pub fn channel(redis: &Redis, slice: &str) -> String {
    redis.key(["events", slice])
}

/// Whether a test has switched `protection` off, everywhere or for one channel.
fn off(protection: &str, channel: &str) -> bool {
    cfg!(debug_assertions) && (failpoint::without(protection) || failpoint::without(&format!("{protection}/{channel}")))
}

async fn kept_running<F: Future<Output = ()>>(name: &'static str, shutdown: CancellationToken, run: impl Fn() -> F) {
    while AssertUnwindSafe(run()).catch_unwind().await.is_err() && !shutdown.is_cancelled() {
        tracing::error!(task = name, "a task of the event stream panicked and starts again");
        tokio::time::sleep(AFTER_A_PANIC).await;
    }
}
