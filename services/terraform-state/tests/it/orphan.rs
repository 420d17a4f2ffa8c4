//! Locks of jobs: bound to them, and released when they have ended.

use std::time::Duration;

use api::{
    events::v1::{JobEnded, event::Payload},
    pipelines::v1::JobStanding,
    terraform_state::v1::{GetLockRequest, ListLockHistoryRequest, LockEnding, LockStanding, LockStateRequest},
};
use kit::failpoint;
use uuid::Uuid;

use crate::world::{EVERYTHING, Grpc, WORK, World, id, lock_info, reason, state};

/// A job, bound to the state `name` of a design.
fn job(world: &World, design: Uuid, name: &str) -> String {
    world.served.office.job(world.org, &WORK, &design.to_string(), name)
}

/// Pipelines tells that a job has ended; whether its credential still opens the gate is another matter.
fn tell_ended(world: &World, credential: &str) {
    let job_id = world.served.office.job_id(credential).to_string();
    world
        .served
        .office
        .tell_as("pipelines", world.org, Payload::JobEnded(JobEnded { job_id }));
}

/// Waits until a query of a count answers this.
async fn until(world: &World, query: &str, count: i64) {
    let counted = async {
        while world.number(query).await != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), counted).await;
    assert!(waited.is_ok(), "{query} is never {count}");
}

const HELD: &str = "select count(*) from state_locks";

#[tokio::test]
async fn the_lock_of_a_job_that_was_killed_is_taken_away_and_its_writes_are_refused() {
    let world = World::new().await;
    let killed = job(&world, Uuid::now_v7(), "prod");
    let (http, lock) = (world.http_as(&killed), id());
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    assert_eq!(http.post("prod", &lock, &state(1, "l", "x")).await.status, 200);
    tell_ended(&world, &killed);
    until(&world, HELD, 0).await;
    // The gate has not heard of it yet: what is sent under the old lock is refused all the same.
    let late = http.post("prod", &lock, &state(2, "l", "late")).await;
    assert_eq!((late.status, late.reason().as_str()), (409, "LOCK_MISMATCH"));
    assert_eq!(http.unlock("prod", &lock).await.status, 409);
    for lock in [lock.clone(), id()] {
        let again = http.lock("prod", &lock).await;
        assert_eq!((again.status, again.reason().as_str()), (401, "CREDENTIAL_INVALID"));
    }
    assert_eq!(world.versions("prod").await, 1);
    let released = world
        .events()
        .await
        .into_iter()
        .find(|event| event.action == "terraform_state.ReleaseOrphanedLock");
    let released = released.expect("the trail tells of it");
    assert!(released.audited && !released.cause_event_id.is_empty());
    let mut person = world.grpc(&EVERYTHING);
    let past = person
        .locks
        .list_lock_history(ListLockHistoryRequest::default())
        .await
        .unwrap();
    let past = past.into_inner().past_locks.remove(0);
    assert_eq!((past.ending(), past.ended_by_id.as_str()), (LockEnding::Orphaned, ""));
    assert_eq!(past.ended_reason, "the job that held it has ended");
    let held = past.lock.unwrap();
    assert_eq!((held.id, held.holder_kind.as_str()), (lock, "job"));
    assert!(!held.execution_id.is_empty());
}

#[tokio::test]
async fn the_next_attempt_finds_the_state_free_without_anybodys_help() {
    let world = World::new().await;
    let design = Uuid::now_v7();
    let (killed, next) = (job(&world, design, "prod"), job(&world, design, "prod"));
    assert_eq!(world.http_as(&killed).lock("prod", &id()).await.status, 200);
    assert_eq!(world.http_as(&next).lock("prod", &id()).await.status, 423);
    tell_ended(&world, &killed);
    // What pipelines has told is applied before anyone is refused because of a job.
    assert_eq!(world.http_as(&next).lock("prod", &id()).await.status, 200);
    // A job that ends without a lock leaves nothing behind, nor does one whose lock was given back.
    let third = job(&world, design, "other");
    let lock = id();
    assert_eq!(world.http_as(&third).lock("other", &lock).await.status, 200);
    assert_eq!(world.http_as(&third).unlock("other", &lock).await.status, 200);
    tell_ended(&world, &third);
    until(&world, "select count(*) from lock_jobs where ended_at is not null", 2).await;
    let orphaned = "select count(*) from lock_history where ending = 'orphaned'";
    assert_eq!(world.number(orphaned).await, 1);
}

#[tokio::test]
async fn without_the_release_the_next_attempt_is_locked_out() {
    let world = World::new().await;
    let design = Uuid::now_v7();
    let (killed, next) = (job(&world, design, "kept"), job(&world, design, "kept"));
    let _off = failpoint::switch_off("terraform_state.orphans/kept");
    assert_eq!(world.http_as(&killed).lock("kept", &id()).await.status, 200);
    tell_ended(&world, &killed);
    until(&world, "select count(*) from lock_jobs where ended_at is not null", 1).await;
    assert_eq!(world.http_as(&next).lock("kept", &id()).await.status, 423);
}

#[tokio::test]
async fn without_memory_of_ended_jobs_one_locks_again_and_nobody_gives_that_back() {
    let world = World::new().await;
    let killed = job(&world, Uuid::now_v7(), "prod");
    let ended = world.served.office.job_id(&killed);
    let _off = failpoint::switch_off(format!("terraform_state.ended_jobs/{ended}"));
    tell_ended(&world, &killed);
    until(&world, "select count(*) from lock_jobs where ended_at is not null", 1).await;
    assert_eq!(world.http_as(&killed).lock("prod", &id()).await.status, 200);
    assert_eq!(world.number(HELD).await, 1);
}

#[tokio::test]
async fn how_a_job_stands_that_holds_a_lock_is_shown() {
    let world = World::new().await;
    let holder = job(&world, Uuid::now_v7(), "prod");
    assert_eq!(world.http_as(&holder).lock("prod", &id()).await.status, 200);
    assert_eq!(world.http(&WORK).lock("other", &id()).await.status, 200);
    let mut person = world.grpc(&EVERYTHING);
    let (state_id, other) = (person.named("prod").await.id, person.named("other").await.id);
    let mut standing = async |state_id: &str| {
        let request = GetLockRequest {
            state_id: state_id.to_owned(),
        };
        let held = person.locks.get_lock(request).await.unwrap().into_inner().lock.unwrap();
        held.lock.unwrap().standing()
    };
    assert_eq!(standing(&other).await, LockStanding::Unspecified);
    for (told, shown) in [
        (JobStanding::Live, LockStanding::Live),
        (JobStanding::Expiring, LockStanding::Expiring),
        (JobStanding::Ended, LockStanding::Orphaned),
    ] {
        world.served.office.job_stands(&holder, told);
        assert_eq!(standing(&state_id).await, shown);
    }
    world.served.office.jobs_away(true);
    assert_eq!(standing(&state_id).await, LockStanding::Unknown);
    assert_eq!(standing(&other).await, LockStanding::Unspecified);
}

#[tokio::test]
async fn a_maintenance_lock_is_a_persons_to_take_and_to_end() {
    let world = World::new().await;
    let design = Uuid::now_v7();
    let credential = world
        .served
        .office
        .job(world.org, &EVERYTHING, &design.to_string(), "prod");
    let (mut person, http) = world.both(&EVERYTHING);
    let made = http.post("prod", "", &state(1, "l", "x")).await;
    assert_eq!(made.status, 200);
    let state_id = person.named("prod").await.id;
    let lock_id = id();
    let take = |id: &str| LockStateRequest {
        state_id: state_id.clone(),
        lock: Some(api::terraform_state::v1::Lock {
            id: id.to_owned(),
            ..Default::default()
        }),
        maintenance_reason: "the database is moved".to_owned(),
        ..Default::default()
    };
    let mut job = Grpc::new(world.served.with(&credential));
    let (told, _) = reason(job.locks.lock_state(take(&id())).await);
    assert_eq!(told, "CALLER_NOT_ALLOWED");
    let taken = person
        .locks
        .lock_state(take(&lock_id))
        .await
        .unwrap()
        .into_inner()
        .lock
        .unwrap();
    assert_eq!(
        (taken.operation.as_str(), taken.maintenance_reason.as_str()),
        ("maintenance", "the database is moved")
    );
    // Terraform is told why; it ends nothing, not even for its taker or whoever may force.
    let of_job = world.http_as(&credential);
    let refused = of_job.lock("prod", &id()).await;
    assert_eq!(
        (refused.status, refused.json()["Info"].as_str()),
        (423, Some("the database is moved"))
    );
    let bare = format!(r#"{{"ID":"{lock_id}"}}"#);
    for caller in [&of_job, &http, &world.http(&EVERYTHING)] {
        for body in ["", &bare, &lock_info(&lock_id, "maintenance")] {
            assert_eq!(
                caller.ask("UNLOCK", "/v1/states/prod", body.as_bytes()).await.status,
                409
            );
        }
    }
    let force = |lock_id: &str| api::terraform_state::v1::ForceUnlockStateRequest {
        state_id: state_id.clone(),
        lock_id: lock_id.to_owned(),
        reason: "it is over".to_owned(),
        ..Default::default()
    };
    let (told, _) = reason(job.locks.force_unlock_state(force(&lock_id)).await);
    assert_eq!(told, "CALLER_NOT_ALLOWED");
    tell_ended(&world, &credential);
    until(&world, "select count(*) from lock_jobs where ended_at is not null", 1).await;
    assert_eq!(world.number(HELD).await, 1);
    // Its holder works under it.
    assert_eq!(http.post("prod", &lock_id, &state(2, "l", "y")).await.status, 200);
    let listed = |maintenance_only| api::terraform_state::v1::ListLocksRequest {
        maintenance_only,
        ..Default::default()
    };
    let locks = person.locks.list_locks(listed(true)).await.unwrap().into_inner().locks;
    assert_eq!(locks.len(), 1);
    let mut colleague = world.grpc(&EVERYTHING);
    colleague.locks.force_unlock_state(force(&lock_id)).await.unwrap();
    // And once more, given back by who took it.
    let second = id();
    person.locks.lock_state(take(&second)).await.unwrap();
    let unlock = api::terraform_state::v1::UnlockStateRequest {
        state_id: state_id.clone(),
        lock_id: second,
        ..Default::default()
    };
    person.locks.unlock_state(unlock).await.unwrap();
    let past = person
        .locks
        .list_lock_history(ListLockHistoryRequest::default())
        .await
        .unwrap();
    let past = past.into_inner().past_locks;
    let endings: Vec<_> = past
        .iter()
        .map(|past| (past.ending(), past.ended_reason.as_str()))
        .collect();
    assert_eq!(
        endings,
        [(LockEnding::Released, ""), (LockEnding::Forced, "it is over")]
    );
    assert!(
        person
            .locks
            .list_locks(listed(false))
            .await
            .unwrap()
            .into_inner()
            .locks
            .is_empty()
    );
}
