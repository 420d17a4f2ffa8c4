//! Both ways that events take, and what carries them when one is gone.

use std::time::{Duration, Instant, SystemTime};

use kit::{
    events::follow::{Start, Step},
    failpoint::switch_off,
};

use crate::{
    events::{Toy, figure, take},
    eventually, own_redis,
};

const BEGINNING: Start = Start::After {
    epoch: None,
    position: 0,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_keeps_up_hears_everything_over_the_channel() {
    let toy = Toy::open().await;
    let mut follower = toy.follow("keeps_up", BEGINNING);
    // The subscription is in force once a heartbeat has confirmed the empty log a second time.
    for _ in 0..3 {
        assert!(matches!(follower.next().await, Step::CaughtUp { head: 0, .. }));
    }
    let told = toy.tell_many(50).await;
    let heard = take(&mut follower, 50).await;
    let positions: Vec<i64> = heard.iter().map(|event| event.position).collect();
    assert_eq!(positions, (1..=50).collect::<Vec<_>>());
    assert!(
        heard
            .iter()
            .zip(&told)
            .all(|(heard, told)| heard.event.as_ref().unwrap().event_id == told.to_string())
    );
    assert_eq!(
        (
            figure("events", "keeps_up", "pubsub"),
            figure("events", "keeps_up", "replay")
        ),
        (50, 0)
    );
    assert!(matches!(follower.next().await, Step::CaughtUp { head: 50, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_publishing_off_everything_is_fetched_and_a_silence_is_noticed() {
    let toy = Toy::open().await;
    let _off = switch_off(format!("publish/{}", toy.channel()));
    let _consuming = toy.consume("unpublished");
    eventually(async || figure("event_silences", "unpublished", "") == 1).await;
    let told = toy.tell_many(50).await;
    let since = Instant::now();
    toy.until_applied("unpublished", 50).await;
    assert!(since.elapsed() < Duration::from_millis(2_500), "{:?}", since.elapsed());
    assert_eq!(toy.effects("unpublished").await, told);
    assert_eq!(figure("events", "unpublished", "pubsub"), 0);
    assert_eq!(figure("events", "unpublished", "replay"), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replay_events_are_lost() {
    let toy = Toy::open().await;
    let off = switch_off(format!("replay/{}", toy.channel()));
    toy.tell_many(10).await;
    toy.until_positioned(10).await;
    let _consuming = toy.consume("lossy");
    // The subscription is in force once something arrives over it.
    eventually(async || {
        toy.tell_many(1).await;
        !toy.effects("lossy").await.is_empty()
    })
    .await;
    let told = toy.head().await.1;
    toy.until_applied("lossy", told).await;
    assert!(toy.effects("lossy").await.len() <= usize::try_from(told).unwrap() - 10);
    drop(off);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_relay_committed_and_did_not_announce_is_fetched() {
    let toy = Toy::open().await;
    let mut follower = toy.follow("unannounced", BEGINNING);
    for _ in 0..3 {
        assert!(matches!(follower.next().await, Step::CaughtUp { .. }));
    }
    let off = switch_off(format!("publish/{}", toy.channel()));
    toy.tell(&[""]).await;
    toy.until_positioned(1).await;
    drop(off);
    // The next heartbeat shows a head that nobody announced.
    take(&mut follower, 1).await;
    assert_eq!(figure("events", "unannounced", "replay"), 1);
    assert_eq!(figure("event_gaps", "unannounced", ""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_stop_freeze_and_come_back_and_no_event_is_lost() {
    let redis = own_redis().await;
    let toy = Toy::open_with(&[("REDIS_URL", &redis.url())]).await;
    let _consuming = toy.consume("outage");
    let mut told = toy.tell_many(20).await;
    toy.until_applied("outage", 20).await;

    redis.process().kill().await.unwrap();
    for count in [30, 40] {
        let more = toy.tell_many(10).await;
        let since = Instant::now();
        toy.until_applied("outage", count).await;
        assert!(
            since.elapsed() < Duration::from_millis(1_500),
            "{:?} without Redis",
            since.elapsed()
        );
        told.extend(more);
    }
    redis.process().start().await.unwrap();
    redis.ready().await.unwrap();
    // Until the subscription is back, polls may be quicker than the channel.
    let heard = figure("events", "outage", "pubsub");
    let bound = Instant::now() + Duration::from_secs(20);
    while figure("events", "outage", "pubsub") == heard {
        assert!(Instant::now() < bound, "the channel did not come back");
        told.extend(toy.tell_many(1).await);
        toy.until_applied("outage", told.len() as i64).await;
    }

    redis.process().pause().await.unwrap();
    told.extend(toy.tell_many(10).await);
    toy.until_applied("outage", told.len() as i64).await;
    redis.process().resume().await.unwrap();
    told.extend(toy.tell_many(1).await);
    toy.until_applied("outage", told.len() as i64).await;
    assert_eq!(toy.effects("outage").await, told);
    assert!(figure("event_silences", "outage", "") >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_can_start_at_a_time_and_survives_being_polled_in_a_select() {
    let toy = Toy::open().await;
    toy.tell_many(5).await;
    toy.until_positioned(5).await;
    toy.admin
        .batch_execute("update outbox set created_at = now() - interval '1 hour'")
        .await
        .unwrap();
    let told = toy.tell_many(5).await;
    let mut follower = toy.follow("since", Start::Since(SystemTime::now() - Duration::from_secs(600)));
    let mut seen: Vec<uuid::Uuid> = Vec::new();
    // Dropped again and again while it waits, it loses nothing.
    eventually_in(Duration::from_secs(20), async || {
        if let Ok(Step::Events(events)) = tokio::time::timeout(Duration::from_micros(200), follower.next()).await {
            seen.extend(
                events
                    .iter()
                    .map(|event| event.event.as_ref().unwrap().event_id.parse::<uuid::Uuid>().unwrap()),
            );
        }
        seen.len() == 5
    })
    .await;
    assert_eq!(seen, told);

    let mut later = toy.follow("later", Start::Since(SystemTime::now() + Duration::from_secs(600)));
    assert!(matches!(later.next().await, Step::CaughtUp { head: 10, .. }));
}

async fn eventually_in(bound: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async { while !condition().await {} };
    assert!(tokio::time::timeout(bound, waiting).await.is_ok());
}
