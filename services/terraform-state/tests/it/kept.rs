//! What is kept of old versions, and how much an organization keeps.

use api::{
    events::v1::{ExecutionChanged, event::Payload},
    terraform_state::v1::{Retention, State, UpdateStateRequest},
};
use kit::crypto::KeyRing;
use uuid::Uuid;

use crate::world::{WORK, World, id, noise, state};

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
async fn another_retention_is_seen_to_without_a_write() {
    let world = World::with(&EAGER).await;
    let (mut grpc, http) = world.both(&WORK);
    for serial in 1..=4 {
        let sent = state(serial, "l", &noise(200, &serial.to_string()));
        assert_eq!(http.post("prod", "", &sent).await.status, 200);
    }
    world.until("select count(*) from compactions", 0).await;
    let before = grpc.named("prod").await;
    let request = UpdateStateRequest {
        state_id: before.id,
        etag: before.etag,
        request_id: id(),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["retention".to_owned()],
        }),
        state: Some(State {
            retention: Some(Retention {
                keep_versions: 2,
                ..Default::default()
            }),
            ..Default::default()
        }),
    };
    grpc.states.update_state(request).await.unwrap();
    world.until("select count(*) from state_versions", 2).await;
}

#[tokio::test]
async fn what_was_written_before_there_were_data_keys_is_read_and_given_one() {
    let world = World::uncompacted().await;
    let (mut grpc, http) = world.both(&WORK);
    let sent: Vec<String> = (1..=3)
        .map(|serial| state(serial, "l", &noise(2000, "the same in all")))
        .collect();
    for sent in &sent {
        assert_eq!(http.post("prod", "", sent).await.status, 200);
    }
    let state_id = grpc.named("prod").await.id;
    // As the first release kept them: sealed by the ring in two chunks, and not packed.
    let ring = KeyRing::parse(&"06".repeat(32), "").unwrap();
    let org = world.org;
    for (number, sent) in (1_i64..).zip(&sent) {
        let row = "select id::text from state_versions where number = $1";
        let version: String = world.admin.query_one(row, &[&number]).await.unwrap().get(0);
        let mut told = format!("{org}|{state_id}|{number}|{number}|").into_bytes();
        told.extend_from_slice(blake3::hash(sent.as_bytes()).as_bytes());
        let hash = ring.keyed_hash("terraform_state content", &told).to_vec();
        let change = "update state_versions set data_key = null, chunks = 2, content_hash = $2 where number = $1";
        world.admin.execute(change, &[&number, &hash]).await.unwrap();
        let delete = format!("delete from state_chunks where version_id = '{version}'");
        world.admin.batch_execute(&delete).await.unwrap();
        let parts = sent.as_bytes().split_at(1000);
        for (place, part, end) in [(0_i32, parts.0, "more"), (1, parts.1, "last")] {
            let aad = format!("terraform_state.state_chunks|{org}|{state_id}|{version}|{place}|{end}");
            let sealed = ring.seal(part, aad.as_bytes());
            let insert = format!(
                "insert into state_chunks (org_id, version_id, place, sealed) values ('{org}', '{version}', $1, $2)"
            );
            world.admin.execute(&insert, &[&place, &sealed]).await.unwrap();
        }
    }
    let stored = "with v as (update state_versions v set stored_bytes = (select sum(octet_length(sealed)) from state_chunks c \
                  where c.version_id = v.id) returning stored_bytes) update states set stored_bytes = (select sum(stored_bytes) from v)";
    world.admin.batch_execute(stored).await.unwrap();
    assert_eq!(http.get("prod").await.body, sent[2].as_bytes());
    assert_eq!(grpc.content(&state_id, 1).await.unwrap(), sent[0].as_bytes());
    // A repeat is known by its old hash.
    assert_eq!(http.post("prod", "", &sent[2]).await.status, 200);
    assert_eq!(world.versions("prod").await, 3);
    let eager = world.replica(&EAGER).await;
    world.compacted().await;
    world
        .until("select count(*) from state_versions where data_key is null", 0)
        .await;
    world
        .until("select count(*) from state_versions where base_number is not null", 2)
        .await;
    for (number, sent) in (1..).zip(&sent) {
        assert_eq!(grpc.content(&state_id, number).await.unwrap(), sent.as_bytes());
    }
    let counted =
        "select count(*) from states where stored_bytes = (select sum(octet_length(sealed)) from state_chunks)";
    assert_eq!(world.number(counted).await, 1);
    eager.stop().await;
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
