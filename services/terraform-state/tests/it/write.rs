//! Which write may follow which.

use crate::world::{EVERYTHING, WORK, World, blank, id, state};

#[tokio::test]
async fn a_write_repeated_after_a_lost_answer_makes_no_version() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let lock = id();
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    for _ in 0..3 {
        assert_eq!(http.post("prod", &lock, &state(1, "l", "x")).await.status, 200);
    }
    assert_eq!(world.versions("prod").await, 1);
    // One byte of difference is no repeat.
    assert_eq!(http.post("prod", &lock, &state(1, "l", "y")).await.status, 409);
    assert_eq!(http.post("prod", &lock, &state(2, "l", "y")).await.status, 200);
    assert_eq!(http.post("prod", &lock, &state(2, "l", "y")).await.status, 200);
    assert_eq!(http.post("prod", &lock, &state(1, "l", "x")).await.status, 409);
    assert_eq!(world.versions("prod").await, 2);
    let told = world
        .events()
        .await
        .into_iter()
        .filter_map(|event| match event.payload? {
            api::events::v1::event::Payload::StateWritten(written) => {
                Some((written.state_name, written.version, written.serial))
            }
            _ => None,
        });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [("prod".to_owned(), 1, 1), ("prod".to_owned(), 2, 2)]
    );
}

#[tokio::test]
async fn while_a_state_is_locked_only_the_holder_writes() {
    let world = World::new().await;
    let (http, force) = (world.http(&WORK), world.http(&EVERYTHING));
    let lock = id();
    // A lock that nobody has.
    assert_eq!(http.post("prod", &lock, &state(1, "l", "x")).await.status, 409);
    assert_eq!(http.post("prod", "", &state(1, "l", "x")).await.status, 200);
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    for given in ["", &id()] {
        for caller in [&http, &force] {
            let refused = caller.post("prod", given, &state(2, "l", "x")).await;
            assert_eq!((refused.status, refused.reason().as_str()), (409, "LOCK_MISMATCH"));
        }
    }
    assert_eq!(http.post("prod", &lock, &state(2, "l", "x")).await.status, 200);
    assert_eq!(http.unlock("prod", &lock).await.status, 200);
    assert_eq!(http.post("prod", &lock, &state(3, "l", "x")).await.status, 409);
    assert_eq!(http.post("prod", "", &state(3, "l", "x")).await.status, 200);
}

#[tokio::test]
async fn serials_grow_within_a_lineage_unless_the_state_is_blank() {
    let world = World::new().await;
    let http = world.http(&WORK);
    for (sent, status) in [
        (state(5, "l", "x"), 200),
        (state(90, "l", "x"), 200),
        (state(90, "l", "y"), 409),
        (state(89, "l", "y"), 409),
        (state(91, "m", "y"), 409),
        (blank(91, "l"), 200),
        // What was destroyed may be followed by anything.
        (state(1, "m", "y"), 200),
        (state(2, "l", "y"), 409),
        (
            r#"{"serial":2,"lineage":"m","meta":{},"encrypted_data":"AAAA","encryption_version":"v0"}"#.to_owned(),
            200,
        ),
        (state(2, "m", "y"), 409),
        (state(3, "m", "y"), 200),
    ] {
        assert_eq!(http.post("prod", "", &sent).await.status, status, "{sent}");
    }
    let kinds = "select count(*) from state_versions where kind = 'normal'";
    assert_eq!(world.number(kinds).await, 6);
    let counts = "select resource_count::bigint from state_versions where number = 5";
    assert_eq!(world.number(counts).await, -1);
}

#[tokio::test]
async fn a_push_goes_over_the_rules_with_its_permission_alone() {
    let world = World::new().await;
    let (http, force) = (world.http(&WORK), world.http(&EVERYTHING));
    assert_eq!(http.post("prod", "", &state(7, "l", "x")).await.status, 200);
    let attempt = async |caller: &crate::world::Http, operation: &str, sent: String| {
        let lock = id();
        assert_eq!(caller.lock_for("prod", &lock, operation).await.status, 200);
        let status = caller.post("prod", &lock, &sent).await.status;
        assert_eq!(caller.unlock("prod", &lock).await.status, 200);
        status
    };
    assert_eq!(attempt(&force, "OperationTypeApply", state(7, "l", "y")).await, 409);
    assert_eq!(attempt(&http, "state-push", state(7, "l", "y")).await, 409);
    assert_eq!(force.post("prod", "", &state(7, "l", "y")).await.status, 409);
    assert_eq!(attempt(&force, "state-push", state(7, "l", "y")).await, 200);
    assert_eq!(
        attempt(&force, "migration destination state", state(1, "m", "z")).await,
        200
    );
    // One that keeps to them is a write like any other.
    assert_eq!(attempt(&http, "state-push", state(2, "m", "z")).await, 200);
    let kinds = "select string_agg(kind::text, ' ' order by number) from state_versions";
    let kinds: String = world.admin.query_one(kinds, &[]).await.unwrap().get(0);
    assert_eq!(kinds, "normal forced forced normal");
}

#[tokio::test]
async fn of_two_who_write_one_serial_at_once_one_does() {
    let world = World::new().await;
    for round in 1..=5 {
        let writes = ["x", "y", "z"].map(|value| {
            let (http, sent) = (world.http(&WORK), state(round, "l", value));
            tokio::spawn(async move { http.post("prod", "", &sent).await.status })
        });
        let mut statuses = Vec::new();
        for write in writes {
            statuses.push(write.await.unwrap());
        }
        statuses.sort_unstable();
        // Before the first, each may have sealed for a state that another made; Terraform sends that again.
        assert_eq!(statuses[0], 200, "{statuses:?}");
        assert!(
            statuses[1..].iter().all(|status| [409, 503].contains(status)),
            "{statuses:?}"
        );
        assert_eq!(world.versions("prod").await, round as i64);
    }
}
