//! kit against a real PostgreSQL and Redis.
#![allow(clippy::unwrap_used)]

mod cache;
mod database;
mod door;
mod events;
mod events_caught_up;
mod events_log;
mod events_once;
mod events_path;
mod events_unplaced;
mod jobs;
mod rate;
mod redis;
mod streams;
mod views;

use std::time::Duration;

/// Waits until the condition holds.
///
/// # Panics
/// When it does not within 20 s.
async fn eventually(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(held.is_ok(), "what was waited for did not come within 20 s");
}

/// A handle to the Redis of this process, under a prefix that no other test has.
async fn shared_redis() -> kit::redis::Redis {
    let prefix = format!("board3.test-{}", kit::crypto::base62(12));
    kit::redis::Redis::connect(&testkit::servers::redis_url().await, prefix).unwrap()
}

/// A Redis server of the test's own, to be stopped and frozen.
async fn own_redis() -> testkit::servers::Redis {
    testkit::servers::Redis::start().await.unwrap()
}
