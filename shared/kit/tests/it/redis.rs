//! The Redis handle against a server that breaks, freezes and comes back.

use std::time::{Duration, Instant};

use kit::error::Reason;
use kit::redis::{Redis, Script};

use crate::{eventually, own_redis, shared_redis};

static ECHO: Script = Script::new("return {#KEYS, KEYS[1], ARGV[2]}");

#[tokio::test]
async fn values_live_as_long_as_they_were_given() {
    let redis = shared_redis().await;
    let key = redis.key(["session", "1"]);
    assert!(key.starts_with("board3.test-") && key.ends_with(".session.1"));
    assert_eq!(redis.get(&key).await.unwrap(), None);
    redis.set(&key, b"\x00\xff", Duration::from_secs(60)).await.unwrap();
    assert_eq!(redis.get(&key).await.unwrap().as_deref(), Some(&b"\x00\xff"[..]));
    assert!(redis.touch(&key, Duration::from_millis(1)).await.unwrap());
    eventually(async || redis.get(&key).await.unwrap().is_none()).await;
    redis.set(&key, b"x", Duration::from_secs(60)).await.unwrap();
    assert_eq!(redis.del(&[key.clone(), redis.key(["absent"])]).await.unwrap(), 1);
    assert_eq!(redis.del(&[]).await.unwrap(), 0);
    assert!(!redis.touch(&key, Duration::from_secs(1)).await.unwrap());
}

#[tokio::test]
async fn a_script_is_loaded_again_where_the_server_forgot_it() {
    let server = own_redis().await;
    let redis = Redis::connect(&server.url(), "board3.a").unwrap();
    for _ in 0..2 {
        let answer: (i64, String, String) = redis.eval(&ECHO, &["k".to_owned()], &["a", "b"]).await.unwrap();
        assert_eq!(answer, (1, "k".to_owned(), "b".to_owned()));
        let _: () = redis
            .query(&bb8_redis::redis::cmd("SCRIPT").arg("FLUSH").to_owned())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn connections_that_were_cut_are_replaced_without_a_failed_call() {
    let server = own_redis().await;
    let redis = Redis::connect(&server.url(), "board3.a").unwrap();
    for _ in 0..5 {
        // Several connections at once, so that several lie idle when they are cut.
        let pings = (0..32).map(|_| redis.ping());
        futures_util::future::try_join_all(pings).await.unwrap();
        let other = Redis::connect(&server.url(), "board3.b").unwrap();
        let kill = "CLIENT KILL TYPE normal SKIPME yes";
        let mut command = bb8_redis::redis::Cmd::new();
        kill.split(' ').for_each(|word| {
            command.arg(word);
        });
        let killed: i64 = other.query(&command).await.unwrap();
        assert!(killed >= 1, "nothing was cut");
        redis.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_restarted_server_is_used_again_at_once() {
    let server = own_redis().await;
    let redis = Redis::connect(&server.url(), "board3.a").unwrap();
    redis.ping().await.unwrap();
    server.process().kill().await.unwrap();
    let error = redis.ping().await.unwrap_err();
    assert_eq!(error.reason(), Reason::DependencyUnavailable);
    assert!(format!("{error}").contains("redis"));
    server.process().start().await.unwrap();
    server.ready().await.unwrap();
    let back = Instant::now();
    eventually(async || redis.ping().await.is_ok()).await;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
}

#[tokio::test]
async fn without_a_server_calls_fail_fast_and_the_handle_still_exists() {
    let redis = Redis::connect("redis+unix:///nowhere/redis.sock", "board3.a").unwrap();
    let start = Instant::now();
    assert!(redis.ping().await.is_err());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let start = Instant::now();
    for _ in 0..1_000 {
        assert!(redis.ping().await.is_err());
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(redis.subscribe(&["x".to_owned()]).await.is_err());
    let problem = Redis::connect("not a url with pa55word", "board3.a").unwrap_err();
    assert!(!problem.contains("pa55word"), "{problem}");
}

#[tokio::test]
async fn a_frozen_server_holds_nobody_longer_than_the_bounds() {
    let server = own_redis().await;
    let redis = Redis::connect(&server.url(), "board3.a").unwrap();
    redis.ping().await.unwrap();
    server.process().pause().await.unwrap();
    let start = Instant::now();
    assert!(redis.ping().await.is_err());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    server.process().resume().await.unwrap();
    eventually(async || redis.ping().await.is_ok()).await;
}

#[tokio::test]
async fn a_subscription_hears_what_is_published_under_its_prefix() {
    let server = own_redis().await;
    let redis = Redis::connect(&server.url(), "board3.a").unwrap();
    let other = Redis::connect(&server.url(), "board3.b").unwrap();
    let channels = [redis.key(["events", "one"]), redis.key(["events", "two"])];
    let mut subscription = redis.subscribe(&channels).await.unwrap();
    assert_eq!(other.publish(&other.key(["events", "one"]), b"no").await.unwrap(), 0);
    assert_eq!(redis.publish(&channels[1], b"\xffyes").await.unwrap(), 1);
    assert_eq!(
        subscription.next().await.unwrap(),
        (channels[1].clone(), b"\xffyes".to_vec())
    );
    drop(subscription);
    eventually(async || redis.publish(&channels[1], b"x").await.unwrap() == 0).await;
}

#[tokio::test]
async fn a_subscription_ends_when_the_server_does() {
    let server = own_redis().await;
    let redis = Redis::connect(&server.url(), "board3.a").unwrap();
    let mut subscription = redis.subscribe(&[redis.key(["events"])]).await.unwrap();
    server.process().kill().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), subscription.next()).await;
    assert_eq!(ended.unwrap().unwrap_err().reason(), Reason::DependencyUnavailable);
}

#[tokio::test]
async fn a_quiet_subscription_outlives_its_pings_and_a_deaf_one_ends() {
    let server = own_redis().await;
    let redis = Redis::connect(&server.url(), "board3.a").unwrap();
    let channel = redis.key(["events"]);
    let mut subscription = redis.subscribe(std::slice::from_ref(&channel)).await.unwrap();
    // One PING and its answer lie in between: it must not be taken for a message or for an end.
    let quiet = tokio::time::timeout(Duration::from_secs(6), subscription.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    redis.publish(&channel, b"still here").await.unwrap();
    assert_eq!(subscription.next().await.unwrap().1, b"still here");

    server.process().pause().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(12), subscription.next()).await;
    server.process().resume().await.unwrap();
    assert!(ended.expect("noticed within 9 s and some slack").is_err());
}
