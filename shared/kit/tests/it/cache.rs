//! The cache's races, each played step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use kit::cache::Cache;
use kit::error::{Error, Reason};
use kit::failpoint;
use kit::redis::Redis;
use tokio::sync::oneshot;

use crate::{eventually, own_redis, shared_redis};

const TTL: Duration = Duration::from_secs(60);

/// A row: its version is its value.
async fn read(cache: &Cache, row: &AtomicI64) -> i64 {
    let load = async || {
        let version = row.load(Ordering::SeqCst);
        Ok(Some((version, version)))
    };
    cache.get_or_load("org.1", TTL, load).await.unwrap().unwrap()
}

fn counted(cache: &Cache) -> (u64, u64, u64) {
    let stats = cache.stats();
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::SeqCst);
    (read(&stats.hits), read(&stats.misses), read(&stats.bypasses))
}

#[tokio::test]
async fn a_value_is_loaded_once_and_again_after_a_change() {
    let cache = Cache::new(shared_redis().await, "test.plain");
    let row = AtomicI64::new(1);
    assert_eq!(read(&cache, &row).await, 1);
    row.store(2, Ordering::SeqCst);
    assert_eq!(read(&cache, &row).await, 1, "nobody said that it changed");
    cache.invalidate("org.1", 2).await.unwrap();
    assert_eq!(read(&cache, &row).await, 2);
    cache.invalidate("org.1", 2).await.unwrap();
    cache.invalidate("org.1", 1).await.unwrap();
    assert_eq!(read(&cache, &row).await, 2);
    assert_eq!(
        counted(&cache),
        (2, 2, 0),
        "late and repeated news of a change cost nothing"
    );
}

/// A reader takes the old row and stalls; the row changes and everybody hears of it; the reader goes on.
async fn read_after_a_stalled_reader(name: &'static str) -> i64 {
    let cache = Cache::new(shared_redis().await, name);
    let row = Arc::new(AtomicI64::new(1));
    let (stalled, arrived) = oneshot::channel();
    let (go_on, gone_on) = oneshot::channel::<()>();
    let stalling = tokio::spawn({
        let (cache, row) = (cache.clone(), row.clone());
        async move {
            let load = async || {
                let version = row.load(Ordering::SeqCst);
                stalled.send(()).unwrap();
                gone_on.await.unwrap();
                Ok(Some((version, version)))
            };
            cache.get_or_load("org.1", TTL, load).await.unwrap()
        }
    });
    arrived.await.unwrap();
    row.store(2, Ordering::SeqCst);
    cache.invalidate("org.1", 2).await.unwrap();
    let fresh = tokio::time::timeout(Duration::from_secs(20), read(&cache, &row)).await;
    assert_eq!(
        fresh,
        Ok(2),
        "a load that began before the change is not shared after it"
    );
    go_on.send(()).unwrap();
    assert_eq!(stalling.await.unwrap(), Some(1), "its call began before the change");
    read(&cache, &row).await
}

#[tokio::test]
async fn a_stalled_reader_cannot_bring_the_old_value_back() {
    assert_eq!(read_after_a_stalled_reader("test.stalled").await, 2);
}

#[tokio::test]
async fn without_the_comparison_of_versions_the_old_value_comes_back() {
    let _without = failpoint::switch_off("cache_version.test.unversioned");
    assert_eq!(read_after_a_stalled_reader("test.unversioned").await, 1);
}

#[tokio::test]
async fn the_tombstone_alone_turns_a_stalled_reader_away() {
    let redis = shared_redis().await;
    let (cache, elsewhere) = (Cache::new(redis.clone(), "test.tomb"), Cache::new(redis, "test.tomb"));
    let row = AtomicI64::new(1);
    let load = async || {
        let version = row.load(Ordering::SeqCst);
        row.store(2, Ordering::SeqCst);
        elsewhere.invalidate("org.1", 2).await?;
        Ok(Some((version, version)))
    };
    assert_eq!(cache.get_or_load("org.1", TTL, load).await.unwrap(), Some(1));
    assert_eq!(read(&cache, &row).await, 2);
}

#[tokio::test]
async fn who_comes_after_a_change_shares_no_load_that_began_before_it() {
    let redis = shared_redis().await;
    let (cache, elsewhere) = (Cache::new(redis.clone(), "test.floor"), Cache::new(redis, "test.floor"));
    let (leading, led) = oneshot::channel();
    let before = async || {
        leading.send(()).unwrap();
        eventually(async || counted(&cache).1 == 2).await;
        Ok(Some((1, 1)))
    };
    let (old, new) = tokio::join!(cache.get_or_load("org.1", TTL, before), async {
        led.await.unwrap();
        elsewhere.invalidate("org.1", 2).await.unwrap();
        cache.get_or_load("org.1", TTL, async || Ok(Some((2, 2)))).await
    });
    assert_eq!((old.unwrap(), new.unwrap()), (Some(1), Some(2)));
    assert_eq!(read(&cache, &AtomicI64::new(3)).await, 2);
}

#[tokio::test]
async fn a_version_outlives_a_short_lived_value() {
    let redis = shared_redis().await;
    let cache = Cache::new(redis.clone(), "test.short");
    let short = Duration::from_millis(20);
    let of = |version: i64| async move { Ok::<_, Error>(Some((version, version))) };
    assert_eq!(cache.get_or_load("org.1", short, || of(5)).await.unwrap(), Some(5));
    eventually(async || {
        cache
            .get_or_load("org.1", short, || async { Ok(None::<(i64, i64)>) })
            .await
            .unwrap()
            .is_none()
    })
    .await;
    // An older row may still be on its way: it is answered, but not kept.
    assert_eq!(cache.get_or_load("org.1", TTL, || of(4)).await.unwrap(), Some(4));
    assert_eq!(cache.get_or_load("org.1", TTL, || of(6)).await.unwrap(), Some(6));
    assert_eq!(cache.get_or_load("org.1", TTL, || of(7)).await.unwrap(), Some(6));
}

#[tokio::test]
async fn a_thousand_misses_at_once_are_one_load() {
    let cache = Cache::new(shared_redis().await, "test.stampede");
    let loads = AtomicU32::new(0);
    let load = async || {
        loads.fetch_add(1, Ordering::SeqCst);
        // Misses, and reads that a hurried machine let time out: they wait for the same load.
        let arrived = || counted(&cache).1 + counted(&cache).2;
        eventually(async || arrived() >= 1_000).await;
        Ok(Some(("value".to_owned(), 1)))
    };
    let calls = (0..1_000).map(|_| cache.get_or_load("org.1", TTL, load));
    let values = futures_util::future::try_join_all(calls).await.unwrap();
    assert!(values.iter().all(|value| value.as_deref() == Some("value")));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_shared_a_load_that_failed_loads_for_itself() {
    let cache = Cache::new(shared_redis().await, "test.failing");
    let (leading, led) = oneshot::channel();
    let failing = async || {
        leading.send(()).unwrap();
        eventually(async || counted(&cache).1 == 2).await;
        Err::<Option<(i64, i64)>, _>(Error::new(Reason::Conflict, "test"))
    };
    let working = async || Ok(Some((3, 3)));
    let (failed, worked) = tokio::join!(cache.get_or_load("org.1", TTL, failing), async {
        led.await.unwrap();
        cache.get_or_load("org.1", TTL, working).await
    });
    assert_eq!(failed.unwrap_err().reason(), Reason::Conflict);
    assert_eq!(worked.unwrap(), Some(3));
}

#[tokio::test]
async fn a_reader_whose_leader_was_cancelled_loads_for_itself() {
    let cache = Cache::new(shared_redis().await, "test.cancelled");
    let leader = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load::<i64, _>("org.1", TTL, std::future::pending).await }
    });
    eventually(async || counted(&cache).1 == 1).await;
    let follower = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load("org.1", TTL, async || Ok(Some((1_i64, 1)))).await }
    });
    eventually(async || counted(&cache).1 == 2).await;
    leader.abort();
    assert_eq!(follower.await.unwrap().unwrap(), Some(1));
}

#[tokio::test]
async fn absent_rows_and_values_of_another_shape_are_not_served() {
    let cache = Cache::new(shared_redis().await, "test.absent");
    let none = async || Ok(None::<(i64, i64)>);
    assert_eq!(cache.get_or_load("org.1", TTL, none).await.unwrap(), None);
    let text = async || Ok(Some(("text".to_owned(), 1)));
    assert!(cache.get_or_load("org.1", TTL, text).await.unwrap().is_some());
    assert_eq!(read(&cache, &AtomicI64::new(1)).await, 1);
    assert_eq!(counted(&cache), (0, 3, 0));
}

#[tokio::test]
async fn with_redis_away_reads_go_through() {
    let server = own_redis().await;
    let cache = Cache::new(Redis::connect(&server.url(), "board3.a").unwrap(), "test.away");
    let row = AtomicI64::new(1);
    assert_eq!(read(&cache, &row).await, 1);
    server.process().kill().await.unwrap();
    row.store(2, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(read(&cache, &row).await, 2);
    }
    assert_eq!(counted(&cache), (0, 1, 10));
    assert_eq!(
        cache.invalidate("org.1", 3).await.unwrap_err().reason(),
        Reason::DependencyUnavailable
    );
}
