//! The cache never answers an older design than the last write that was acknowledged.

use kit::failpoint::{Action, arm, switch_off};
use tokio::sync::Mutex;

use crate::world::{World, canvas, reason, wait};

/// Whether versions are compared is decided when a service starts: these tests start theirs one after the other.
static STARTING: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_second_read_comes_from_redis() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    ada.get(&made.id).await.unwrap();
    world
        .admin
        .batch_execute("update designs set name = 'behind its back'")
        .await
        .unwrap();
    assert_eq!(ada.get(&made.id).await.unwrap(), made);
    // Every write is seen at once by the next read.
    let renamed = ada.rename(&made, "renamed").await.unwrap();
    assert_eq!(ada.get(&made.id).await.unwrap(), renamed);
    ada.publish(&made.id, "").await.unwrap();
    assert_eq!(ada.get(&made.id).await.unwrap().latest_version, 1);
    ada.delete(&made.id, "").await.unwrap();
    assert_eq!(reason(ada.get(&made.id).await).0, "RESOURCE_NOT_FOUND");
}

/// What is read after a reader has stalled with an old row in its hand while the design was renamed.
async fn read_after_a_slow_reader(world: &World) -> String {
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    let point = arm(format!("designs.get.loaded/{}", made.id), Action::Hold).only(1);
    let reader = tokio::spawn({
        let (mut reader, id) = (world.designer(), made.id.clone());
        async move { reader.get(&id).await.unwrap().name }
    });
    point.held(1).await;
    ada.rename(&made, "new").await.unwrap();
    let told = world.number("select count(*) from outbox").await;
    world.applied("designs.cache", told).await;
    point.release();
    assert_eq!(reader.await.unwrap(), "drawn", "it began before the write");
    ada.get(&made.id).await.unwrap().name
}

#[tokio::test]
async fn a_slow_reader_puts_no_old_design_back() {
    let world = {
        let _starting = STARTING.lock().await;
        World::new().await
    };
    assert_eq!(read_after_a_slow_reader(&world).await, "new");
}

#[tokio::test]
async fn without_versions_a_slow_reader_would_put_an_old_design_back() {
    let world = {
        let _starting = STARTING.lock().await;
        let _without = switch_off("cache_version.designs.v1");
        World::new().await
    };
    assert_eq!(read_after_a_slow_reader(&world).await, "drawn");
}

#[tokio::test]
async fn a_crash_between_commit_and_cache_leaves_nothing_stale() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    ada.get(&made.id).await.unwrap();
    let crash = arm(format!("designs.before_settle/{}", made.id), Action::Error);
    assert_eq!(reason(ada.rename(&made, "new").await).0, "INTERNAL");
    crash.release();
    assert_eq!(world.number("select count(*) from designs where name = 'new'").await, 1);
    let reader = std::sync::Arc::new(Mutex::new(world.designer()));
    wait("the event to clear the cache", async || {
        reader.lock().await.get(&made.id).await.unwrap().name == "new"
    })
    .await;
}

#[tokio::test]
async fn a_repeat_after_a_crash_is_not_acknowledged_before_the_cache_is_cleared() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    ada.get(&made.id).await.unwrap();
    let mut change = crate::world::update(&made, &["name"]);
    change.request_id = uuid::Uuid::now_v7().to_string();
    change.design.as_mut().unwrap().name = "new".to_owned();
    let crash = arm(format!("designs.before_settle/{}", made.id), Action::Error);
    assert_eq!(reason(ada.designs.update_design(change.clone()).await).0, "INTERNAL");
    crash.release();
    let repeated = ada
        .designs
        .update_design(change)
        .await
        .unwrap()
        .into_inner()
        .design
        .unwrap();
    assert_eq!(ada.get(&made.id).await.unwrap(), repeated);
}
