//! Effects happen once, whatever is killed between them and the commit, and whoever else applies the same events.

use kit::failpoint::{Action, arm};
use uuid::Uuid;

use crate::{events::Toy, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_whose_transaction_is_killed_before_its_commit_happens_once() {
    let toy = Toy::open().await;
    let told = toy.tell_many(20).await;
    toy.until_positioned(20).await;

    let point = arm("consumer.before_commit/killed", Action::Hold);
    let consuming = toy.consume("killed");
    point.held(1).await;
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where datname = current_database() and usename = 'board3_audit_worker' and state = 'idle in transaction'";
    let killed: i64 = toy.admin.query_one(kill, &[]).await.unwrap().get(0);
    assert!(killed >= 1);
    point.release();
    toy.until_applied("killed", 20).await;
    assert_eq!(toy.effects("killed").await, told);
    drop(consuming);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_whose_consumer_dies_before_the_commit_happens_once() {
    let toy = Toy::open().await;
    let mut told = toy.tell_many(20).await;
    toy.until_positioned(20).await;

    let point = arm("consumer.before_commit/dies", Action::Hold);
    let consuming = toy.consume("dies");
    point.held(1).await;
    drop(consuming);
    let idle = "select count(*) from pg_stat_activity \
                where datname = current_database() and usename = 'board3_audit_worker' and state like 'idle in%'";
    eventually(async || toy.admin.query_one(idle, &[]).await.unwrap().get::<_, i64>(0) == 0).await;
    assert!(toy.effects("dies").await.is_empty());
    point.release();

    // A commit that came through before its consumer died is not done again either.
    let consuming = toy.consume("dies");
    toy.until_applied("dies", 20).await;
    drop(consuming);
    let _consuming = toy.consume("dies");
    told.extend(toy.tell_many(5).await);
    toy.until_applied("dies", 25).await;
    assert_eq!(toy.effects("dies").await, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_one_cursor_and_every_effect_happens_once() {
    let toy = Toy::open().await;
    let _replicas: Vec<_> = (0..3).map(|_| toy.consume("replicas")).collect();
    let mut told = Vec::new();
    for _ in 0..10 {
        told.extend(toy.tell_many(40).await);
    }
    toy.until_applied("replicas", 400).await;
    assert_eq!(toy.effects("replicas").await, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_stops_when_asked_and_goes_on_where_it_stood() {
    let toy = Toy::open().await;
    let mut consuming = toy.consume("stops");
    let mut told = toy.tell_many(30).await;
    toy.until_applied("stops", 30).await;
    consuming.stop.cancel();
    (&mut consuming.task).await.unwrap();
    told.extend(toy.tell_many(30).await);
    toy.until_positioned(60).await;
    let _consuming = toy.consume("stops");
    toy.until_applied("stops", 60).await;
    assert_eq!(toy.effects("stops").await, told);
}

/// Puts the log back to what it was after `position`, as a restore from a backup does.
async fn restore(toy: &Toy, position: i64, epoch: &str) {
    let restore = format!(
        "begin; delete from outbox where position > {position}; \
         update relay_head set position = {position}, epoch = {epoch}; commit"
    );
    toy.admin.batch_execute(&restore).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_new_events_take_effect_and_known_ones_do_not_again() {
    for (consumer, epoch) in [("restored", "gen_random_uuid()"), ("set_back", "epoch")] {
        let toy = Toy::open().await;
        let _consuming = toy.consume(consumer);
        let told = toy.tell_many(10).await;
        toy.until_applied(consumer, 10).await;
        restore(&toy, 6, epoch).await;
        if consumer == "set_back" {
            // Nobody changed the epoch: the log being shorter than what is known must be enough.
            eventually(async || toy.cursor(consumer).await.is_some_and(|(_, position)| position == 6)).await;
        }
        let new = toy.tell_many(4).await;
        let (epoch, _) = toy.head().await;
        eventually(async || toy.cursor(consumer).await == Some((epoch, 10))).await;
        let effects: Vec<Uuid> = toy.effects(consumer).await;
        assert_eq!(effects, [told, new].concat(), "{consumer}");
        assert!(crate::events::figure("event_epoch_changes", consumer, "") >= 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_inbox_a_restore_repeats_effects() {
    let toy = Toy::open().await;
    let _consuming = toy.consume("forgetful");
    let told = toy.tell_many(10).await;
    toy.until_applied("forgetful", 10).await;
    toy.admin.batch_execute("delete from inbox").await.unwrap();
    restore(&toy, 6, "gen_random_uuid()").await;
    let (epoch, _) = toy.head().await;
    eventually(async || toy.cursor("forgetful").await == Some((epoch, 6))).await;
    assert_eq!(toy.effects("forgetful").await, [&told[..], &told[..6]].concat());
}
