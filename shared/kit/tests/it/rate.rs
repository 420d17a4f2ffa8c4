//! Limits on a real Redis, and without one.

use std::time::Duration;

use kit::rate::{Limit, Limiter};
use kit::redis::Redis;

use crate::{eventually, own_redis, shared_redis};

const START: i64 = 1_800_000_000_000_000;

fn limit(name: &str, per_minute: u32, burst: u32) -> (String, Limit) {
    (name.to_owned(), Limit { per_minute, burst })
}

/// A linear congruential generator: the same calls at every run.
fn numbers() -> impl FnMut(u64) -> u64 {
    let mut state: u64 = 42;
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

#[tokio::test]
async fn the_script_and_the_process_decide_alike() {
    let redis = shared_redis().await;
    let alone = Limiter::new(Redis::connect("redis+unix:///nowhere/redis.sock", "board3.a").unwrap());
    let limits = [limit("a", 600, 5), limit("b", 7, 3), limit("c", 61_000, 1)];
    let mut number = numbers();
    let mut now = START;
    let mut allowed = 0;
    for call in 0..500 {
        // Long pauses stay below what a key lives, which the real clock decides.
        now += i64::try_from(number(400_000)).unwrap();
        let first = usize::try_from(number(3)).unwrap();
        let chosen = &limits[first..];
        // One that remembers nothing of its own.
        let shared = Limiter::new(redis.clone());
        let (one, other) = (shared.check_at(chosen, now).await, alone.check_at(chosen, now).await);
        assert_eq!((one, shared.local_checks()), (other, 0), "call {call}");
        allowed += u64::from(one.allowed);
    }
    assert!((50..450).contains(&allowed), "{allowed} of 500 were allowed");
    assert_eq!(alone.local_checks(), allowed);
}

#[tokio::test]
async fn parallel_calls_never_exceed_the_burst() {
    let redis = shared_redis().await;
    let limiters = [Limiter::new(redis.clone()), Limiter::new(redis)];
    let limits = [limit("login", 1, 10), limit("address", 1, 100)];
    let calls = (0..100).map(|call| limiters[call % 2].check(&limits));
    let decisions = futures_util::future::join_all(calls).await;
    assert_eq!(decisions.iter().filter(|decision| decision.allowed).count(), 10);
    let refused = decisions.iter().find(|decision| !decision.allowed).unwrap();
    assert!(refused.retry_after > Duration::from_secs(50) && refused.retry_after <= Duration::from_secs(60));
    let error = refused.into_result().unwrap_err();
    assert_eq!(error.reason_name(), "RATE_LIMITED");

    // The 90 that were refused left the wider limit alone; a refund gives one call back.
    assert_eq!(limiters[0].check(&limits[1..]).await.remaining, 89);
    limiters[0].refund(&limits).await;
    assert!(limiters[0].check(&limits).await.allowed);
    assert!(!limiters[0].check(&limits).await.allowed);
}

#[tokio::test]
async fn of_a_wide_limit_processes_take_bundles_and_together_never_more_than_the_burst() {
    let redis = shared_redis().await;
    let limiters = [Limiter::new(redis.clone()), Limiter::new(redis.clone())];
    // A call comes back each minute: none while the test runs.
    let wide = [limit("wide", 1, 640)];
    let mut now = START;
    // So far the shared bucket was emptied, in calls.
    let taken = async |now: i64| {
        let tat = redis.get(&redis.key(["rate", "wide"])).await.unwrap().unwrap();
        let tat: i64 = String::from_utf8(tat).unwrap().parse().unwrap();
        (tat - now) / 60_000_000
    };
    for made in 1..=25 {
        assert!(limiters[0].check_at(&wide, now).await.allowed);
        assert_eq!(taken(now).await, (made + 9) / 10 * 10);
    }
    // What was taken and not made within its time is lost.
    now += 11_000_000;
    assert!(limiters[0].check_at(&wide, now).await.allowed);
    assert_eq!((taken(now).await, limiters[0].local_checks()), (39, 0));

    let mut made = 26;
    for call in 0..2_000 {
        made += u32::from(limiters[call % 2].check_at(&wide, now).await.allowed);
    }
    assert_eq!(made, 640 - 5);
}

#[tokio::test]
async fn a_spent_limit_comes_back_with_time_and_leaves_no_key() {
    let redis = shared_redis().await;
    let limiter = Limiter::new(redis.clone());
    let limits = [limit("quick", 600, 1)];
    assert!(limiter.check(&limits).await.allowed);
    eventually(async || limiter.check(&limits).await.allowed).await;
    let key = redis.key(["rate", "quick"]);
    eventually(async || redis.get(&key).await.unwrap().is_none()).await;
}

#[tokio::test]
async fn with_redis_away_each_process_limits_for_itself_and_forgets_nothing() {
    let server = own_redis().await;
    let limiter = Limiter::new(Redis::connect(&server.url(), "board3.a").unwrap());
    let limits = [limit("login", 1, 3)];
    assert!(limiter.check(&limits).await.allowed);
    server.process().kill().await.unwrap();
    let mut allowed = 0;
    for _ in 0..20 {
        allowed += u32::from(limiter.check(&limits).await.allowed);
    }
    assert_eq!((allowed, limiter.local_checks()), (2, 2));
    server.process().start().await.unwrap();
    server.ready().await.unwrap();
    eventually(async || {
        limiter.check(&[limit("other", 6_000, 10)]).await;
        let before = limiter.local_checks();
        limiter.check(&[limit("other", 6_000, 10)]).await;
        limiter.local_checks() == before
    })
    .await;
}
