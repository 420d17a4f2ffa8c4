//! What is kept of old versions, and how much an organization keeps.

use api::events::v1::{ExecutionChanged, event::Payload};
use uuid::Uuid;

use crate::world::{WORK, World, noise, state};

const EAGER: [(&str, &str); 1] = [("BOARD3_STATE_COMPACT_AFTER_SECONDS", "0")];

#[tokio::test]
async fn retention_takes_old_versions_but_none_that_an_execution_may_refer_to() {
    let world = World::with(&EAGER).await;
    let (mut grpc, http) = world.both(&WORK);
    let execution = |status: &str, revision| {
        Payload::ExecutionChanged(ExecutionChanged {
            execution_id: Uuid::from_u128(7).to_string(),
            state_name: "prod".to_owned(),
            status: status.to_owned(),
            revision,
            ..Default::default()
        })
    };
    world
        .served
        .office
        .tell_as("pipelines", world.org, execution("running", 1));
    world.until("select count(*) from executions where live", 1).await;
    for serial in 1..=6 {
        assert_eq!(
            http.post("prod", "", &state(serial, "l", &noise(200, &serial.to_string())))
                .await
                .status,
            200
        );
    }
    world
        .admin
        .batch_execute(
            "update states set keep_versions = 2, keep_days = 3; \
             update state_versions set created_at = now() - interval '1 day' * (6 - number)",
        )
        .await
        .unwrap();
    world.compacted().await;
    assert_eq!(world.versions("prod").await, 6);
    world
        .served
        .office
        .tell_as("pipelines", world.org, execution("succeeded", 2));
    world.until("select count(*) from executions where live", 0).await;
    world.compacted().await;
    // Two by their number, and the day before those.
    let left = "select string_agg(number::text, ' ' order by number) from state_versions";
    let left: String = world.admin.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, "4 5 6");
    let state_id = grpc.named("prod").await.id;
    for serial in 4..=6 {
        let content = state(serial, "l", &noise(200, &serial.to_string()));
        assert_eq!(
            grpc.content(&state_id, serial as i64).await.unwrap(),
            content.as_bytes()
        );
    }
    // The current one stays.
    world
        .admin
        .batch_execute("update states set keep_versions = 1, keep_days = 0")
        .await
        .unwrap();
    world.compacted().await;
    assert_eq!(world.versions("prod").await, 1);
    assert_eq!(http.get("prod").await.status, 200);
    // Numbers are given once.
    assert_eq!(http.post("prod", "", &state(7, "l", "x")).await.status, 200);
    assert_eq!(world.number("select max(number) from state_versions").await, 7);
}

#[tokio::test]
async fn an_organization_keeps_no_more_than_its_quota_and_no_larger_state_than_its_limit() {
    let world = World::with(&[
        ("BOARD3_STATE_QUOTA_BYTES", "20000"),
        ("BOARD3_STATE_LIMIT_BYTES", "30000"),
    ])
    .await;
    let http = world.http(&WORK);
    let sent = |serial| state(serial, "l", &noise(10_000, &serial.to_string()));
    assert_eq!(http.post("a", "", &sent(1)).await.status, 200);
    assert_eq!(http.post("b", "", &sent(2)).await.status, 200);
    let refused = http.post("c", "", &sent(3)).await;
    assert_eq!((refused.status, refused.reason().as_str()), (413, "QUOTA_EXCEEDED"));
    assert_eq!(world.number("select count(*) from state_versions").await, 2);
    // A repeat takes no room.
    assert_eq!(http.post("b", "", &sent(2)).await.status, 200);
    let large = state(4, "l", &noise(30_000, "large"));
    let refused = http.post("c", "", &large).await;
    assert_eq!((refused.status, refused.reason().as_str()), (413, "MESSAGE_TOO_LARGE"));
    // Its own limits take the place of everybody's.
    let own = format!(
        "insert into organization_limits values ('{}', 40000, 100000)",
        world.org
    );
    world.admin.batch_execute(&own).await.unwrap();
    assert_eq!(http.post("c", "", &large).await.status, 200);
    assert_eq!(http.post("d", "", &sent(5)).await.status, 200);
}
