//! Who holds a state, and what a repeat is.

use kit::failpoint;
use serde_json::Value;

use crate::world::{EVERYTHING, WORK, World, id, lock_info, state};

#[tokio::test]
async fn a_lost_answer_to_lock_leaves_no_stuck_lock() {
    let world = World::new().await;
    let (http, other) = (world.http(&WORK), world.http(&WORK));
    let lock = id();
    // The first answer is lost; Terraform sends the same again.
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    assert_eq!(http.unlock("prod", &lock).await.status, 200);
    assert_eq!(other.lock("prod", &id()).await.status, 200);
}

#[tokio::test]
async fn without_the_repeat_a_lost_answer_leaves_a_lock_for_ever() {
    let world = World::new().await;
    let (http, other) = (world.http(&WORK), world.http(&WORK));
    let lock = id();
    let _off = failpoint::switch_off("terraform_state.lock_repeat/stuck");
    assert_eq!(http.lock("stuck", &lock).await.status, 200);
    // Terraform is told that it waits for itself, gives up, and does not unlock what it does not hold.
    let refused = http.lock("stuck", &lock).await;
    assert_eq!(
        (refused.status, refused.json()["ID"].as_str()),
        (423, Some(lock.as_str()))
    );
    assert_eq!(other.lock("stuck", &id()).await.status, 423);
}

#[tokio::test]
async fn the_refused_are_shown_the_holder() {
    let world = World::new().await;
    let (holder, other) = (world.http(&WORK), world.http(&WORK));
    let lock = id();
    let taken = holder.lock("prod", &lock).await;
    assert_eq!(taken.status, 200);
    let refused = other.lock("prod", &id()).await;
    assert_eq!(refused.status, 423);
    let info = refused.json();
    assert_eq!(info, taken.json());
    assert_eq!(info["ID"], Value::from(lock.as_str()));
    assert_eq!(
        (info["Who"].as_str(), info["Operation"].as_str()),
        (Some("root@vm"), Some("OperationTypeApply"))
    );
    let created = info["Created"].as_str().unwrap();
    assert!(time::OffsetDateTime::parse(created, &time::format_description::well_known::Rfc3339).is_ok());
    // Whoever has read the id in a refusal holds nothing by it.
    assert_eq!(other.lock("prod", &lock).await.status, 423);
    assert_eq!(other.post("prod", &lock, &state(1, "l", "x")).await.status, 409);
    let refused = other.unlock("prod", &lock).await;
    assert_eq!((refused.status, refused.reason().as_str()), (409, "LOCK_MISMATCH"));
    assert_eq!(holder.post("prod", &lock, &state(1, "l", "x")).await.status, 200);
}

#[tokio::test]
async fn of_many_who_lock_at_once_one_does() {
    let world = World::new().await;
    for round in 0..5 {
        let name = format!("race-{round}");
        let callers = (0..16).map(|_| {
            let (http, name) = (world.http(&WORK), name.clone());
            tokio::spawn(async move { http.lock(&name, &id()).await.status })
        });
        let mut statuses = Vec::new();
        for caller in callers.collect::<Vec<_>>() {
            statuses.push(caller.await.unwrap());
        }
        assert_eq!(
            statuses.iter().filter(|status| **status == 200).count(),
            1,
            "{statuses:?}"
        );
        assert_eq!(
            statuses.iter().filter(|status| **status == 423).count(),
            15,
            "{statuses:?}"
        );
    }
    assert_eq!(world.number("select count(*) from states").await, 5);
}

#[tokio::test]
async fn unlock_repeats_the_last_release_and_releases_nothing_else() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let (first, second) = (id(), id());
    assert_eq!(http.unlock("prod", &first).await.status, 409);
    assert_eq!(http.lock("prod", &first).await.status, 200);
    assert_eq!(http.unlock("prod", &second).await.status, 409);
    assert_eq!(http.unlock("prod", &first).await.status, 200);
    assert_eq!(http.unlock("prod", &first).await.status, 200);
    // And while the next one holds it.
    assert_eq!(http.lock("prod", &second).await.status, 200);
    assert_eq!(http.unlock("prod", &first).await.status, 200);
    assert_eq!(http.lock("prod", &id()).await.status, 423);
    assert_eq!(http.unlock("prod", &second).await.status, 200);
    // Only the last one is a repeat.
    assert_eq!(http.unlock("prod", &first).await.status, 409);
}

#[tokio::test]
async fn force_unlock_needs_its_permission_and_ends_the_holders_writes() {
    let world = World::new().await;
    let (holder, force) = (world.http(&WORK), world.http(&EVERYTHING));
    let (lock, next) = (id(), id());
    assert_eq!(holder.lock("prod", &lock).await.status, 200);
    // Terraform's has no body at all, chunked; OpenTofu's has the id and nothing else.
    let bare = format!(
        r#"{{"ID":"{lock}","Operation":"","Info":"","Who":"","Version":"","Created":"0001-01-01T00:00:00Z","Path":""}}"#
    );
    for body in ["", &bare] {
        let refused = holder.ask("UNLOCK", "/v1/states/prod", body.as_bytes()).await;
        assert_eq!((refused.status, refused.reason().as_str()), (403, "PERMISSION_MISSING"));
    }
    let other = bare.replace(&lock, &next);
    assert_eq!(
        force.ask("UNLOCK", "/v1/states/prod", other.as_bytes()).await.status,
        409
    );
    assert_eq!(force.ask("UNLOCK", "/v1/states/prod", b"").await.status, 200);
    // Its answer may have been lost too.
    assert_eq!(force.ask("UNLOCK", "/v1/states/prod", b"").await.status, 200);
    assert_eq!(holder.post("prod", &lock, &state(1, "l", "x")).await.status, 409);
    assert_eq!(holder.unlock("prod", &lock).await.status, 409);
    assert_eq!(force.lock("prod", &next).await.status, 200);
    assert_eq!(holder.post("prod", &lock, &state(1, "l", "x")).await.status, 409);
    assert_eq!(holder.unlock("prod", &lock).await.status, 409);
    assert_eq!(force.post("prod", &next, &state(1, "l", "x")).await.status, 200);
    let bare = bare.replace(&lock, &next);
    assert_eq!(
        force.ask("UNLOCK", "/v1/states/prod", bare.as_bytes()).await.status,
        200
    );
    assert_eq!(
        force.ask("UNLOCK", "/v1/states/prod", bare.as_bytes()).await.status,
        200
    );
    let row = "select released_reason, released_by_force from states";
    let row = world.admin.query_one(row, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("force-unlock by Terraform", true));
    let denied = world
        .audited()
        .await
        .into_iter()
        .filter(|(_, reason)| reason == "PERMISSION_MISSING");
    assert_eq!(denied.count(), 2);
}

#[tokio::test]
async fn a_force_unlock_that_is_repeated_does_not_take_the_next_lock() {
    let world = World::new().await;
    let (holder, next) = (world.http(&WORK), world.http(&WORK));
    let (force, other_force) = (world.http(&EVERYTHING), world.http(&EVERYTHING));
    let (lock, after) = (id(), id());
    let held = format!("select count(*) from state_locks where lock_id = '{after}'");
    assert_eq!(holder.lock("prod", &lock).await.status, 200);
    assert_eq!(force.ask("UNLOCK", "/v1/states/prod", b"").await.status, 200);
    assert_eq!(next.lock("prod", &after).await.status, 200);
    assert_eq!(force.ask("UNLOCK", "/v1/states/prod", b"").await.status, 200);
    assert_eq!(world.number(&held).await, 1);
    // Later, it is no repeat.
    let later = "update states set released_at = released_at - interval '31 seconds'";
    world.admin.batch_execute(later).await.unwrap();
    assert_eq!(force.ask("UNLOCK", "/v1/states/prod", b"").await.status, 200);
    assert_eq!(world.number(&held).await, 0);
    // Nor is what somebody else asks for.
    assert_eq!(next.lock("prod", &id()).await.status, 200);
    assert_eq!(other_force.ask("UNLOCK", "/v1/states/prod", b"").await.status, 200);
    assert_eq!(world.number("select count(*) from state_locks").await, 0);
    let audited = world.audited().await;
    let forced = audited
        .iter()
        .filter(|(action, _)| action == "terraform_state.ForceUnlockState");
    assert_eq!(forced.count(), 3, "{audited:?}");
}

#[tokio::test]
async fn who_may_force_gives_back_no_lock_of_another() {
    let world = World::new().await;
    let (holder, force) = (world.http(&WORK), world.http(&EVERYTHING));
    let lock = id();
    assert_eq!(holder.lock("prod", &lock).await.status, 200);
    let refused = force.unlock("prod", &lock).await;
    assert_eq!((refused.status, refused.reason().as_str()), (409, "LOCK_MISMATCH"));
    assert_eq!(holder.unlock("prod", &lock).await.status, 200);
}

#[tokio::test]
async fn a_lock_that_comes_after_its_own_unlock_does_not_stick() {
    let world = World::new().await;
    let (http, other) = (world.http(&WORK), world.http(&WORK));
    let lock = id();
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    assert_eq!(http.unlock("prod", &lock).await.status, 200);
    let late = http.lock("prod", &lock).await;
    assert_eq!((late.status, late.reason().as_str()), (409, "LOCK_MISMATCH"));
    assert_eq!(other.lock("prod", &id()).await.status, 200);
}

#[tokio::test]
async fn what_is_too_long_in_a_lock_is_cut_and_a_lock_without_an_id_refused() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let lock = id();
    let long = lock_info(&lock, &"o".repeat(500)).replace("root@vm", &format!("\\u0000{}", "ä".repeat(2000)));
    assert_eq!(http.ask("LOCK", "/v1/states/prod", long.as_bytes()).await.status, 200);
    let row = "select char_length(operation), char_length(who) from state_locks";
    let row = world.admin.query_one(row, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (128, 256));
    for body in [
        "{}",
        "[]",
        "x",
        r#"{"ID":""}"#,
        &format!(r#"{{"ID":"{}"}}"#, "x".repeat(129)),
        r#"{"ID":7}"#,
    ] {
        assert_eq!(
            http.ask("LOCK", "/v1/states/other", body.as_bytes()).await.status,
            400,
            "{body}"
        );
    }
    assert_eq!(world.number("select count(*) from states").await, 1);
}

#[tokio::test]
async fn the_holders_calls_are_signs_of_life() {
    let world = World::new().await;
    let (holder, other) = (world.http(&WORK), world.http(&WORK));
    let lock = id();
    assert_eq!(holder.post("prod", "", &state(1, "l", "x")).await.status, 200);
    assert_eq!(holder.lock("prod", &lock).await.status, 200);
    let seen = "select (extract(epoch from last_seen_at) * 1000000)::bigint from state_locks";
    let mut last = world.number(seen).await;
    other.get("prod").await;
    assert_eq!(world.number(seen).await, last);
    for step in 0..3 {
        match step {
            0 => holder.get("prod").await,
            1 => holder.lock("prod", &lock).await,
            _ => holder.post("prod", &lock, &state(2, "l", "y")).await,
        };
        let now = world.number(seen).await;
        assert!(now > last, "{step}");
        last = now;
    }
}
