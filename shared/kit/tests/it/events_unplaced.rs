//! Committed events that no relay places: the log says so, and nobody is told that all is known.

use std::time::{Duration, Instant};

use api::events::v1::HeadRequest;
use kit::events::follow::{Follower, Start, Step};

use crate::{
    events::{Toy, figure},
    eventually,
};

/// A follower may have confirmed up to a second after the commit; the rest is for a busy machine.
const CONFIRMED: Duration = Duration::from_millis(2_000);
/// Long enough for heartbeats and several answers of the log.
const WATCHED: Duration = Duration::from_secs(6);

async fn waiting_ms(toy: &Toy) -> i64 {
    toy.log().head(HeadRequest {}).await.unwrap().into_inner().waiting_ms
}

/// When the follower confirmed last, in a time in which no event comes.
async fn last_confirmation(follower: &mut Follower, until: Instant) -> Option<Instant> {
    let mut last = None;
    while let Ok(step) = tokio::time::timeout_at(until.into(), follower.next()).await {
        assert!(matches!(step, Step::CaughtUp { head: 0, .. }), "{step:?}");
        last = Some(Instant::now());
    }
    last
}

/// Writes an event that is not placed, and watches a follower that knows all before it and one that starts anew.
async fn nothing_is_confirmed(toy: &Toy, follower: &mut Follower, mut anew: Follower) {
    for _ in 0..2 {
        assert!(matches!(follower.next().await, Step::CaughtUp { head: 0, .. }));
    }
    assert_eq!(waiting_ms(toy).await, 0);
    toy.tell(&[""]).await;
    let told = Instant::now();
    let confirmed = last_confirmation(follower, told + WATCHED).await;
    assert!(
        confirmed.is_none_or(|at| at < told + CONFIRMED),
        "{:?}",
        confirmed.map(|at| at - told)
    );
    assert!(waiting_ms(toy).await >= 6_000);
    assert_eq!(
        last_confirmation(&mut anew, Instant::now() + Duration::from_secs(2)).await,
        None
    );
    assert_eq!(toy.head().await.1, 0);
}

async fn everything_is_confirmed(toy: &Toy, follower: &mut Follower) {
    let Step::Events(events) = follower.next().await else {
        panic!("no event came")
    };
    assert_eq!(events.len(), 1);
    assert!(matches!(follower.next().await, Step::CaughtUp { head: 1, .. }));
    eventually(async || waiting_ms(toy).await == 0).await;
}

const BEGINNING: Start = Start::After {
    epoch: None,
    position: 0,
};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_confirmed_while_a_frozen_relay_holds_the_fence() {
    let toy = Toy::open().await;
    let frozen = toy.served.database.admin().await;
    let fence = "begin; select pg_advisory_xact_lock(hashtextextended('board3.relay.audit', 0))";
    frozen.batch_execute(fence).await.unwrap();
    let mut follower = toy.follow("frozen", BEGINNING);
    nothing_is_confirmed(&toy, &mut follower, toy.follow("frozen_anew", BEGINNING)).await;
    // No heartbeat came either.
    assert!(figure("event_silences", "frozen", "") >= 1);
    frozen.batch_execute("rollback").await.unwrap();
    everything_is_confirmed(&toy, &mut follower).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_confirmed_while_the_relay_fails_each_turn() {
    let toy = Toy::open().await;
    let revoke = "revoke update on relay_head from board3_audit_worker";
    toy.admin.batch_execute(revoke).await.unwrap();
    let mut follower = toy.follow("failing", BEGINNING);
    nothing_is_confirmed(&toy, &mut follower, toy.follow("failing_anew", BEGINNING)).await;
    assert!(figure("event_silences", "failing", "") >= 1);
    let grant = "grant update on relay_head to board3_audit_worker";
    toy.admin.batch_execute(grant).await.unwrap();
    everything_is_confirmed(&toy, &mut follower).await;
}
