//! Locks as they are listed: those that are held, and those that are over.

use api::terraform_state::v1::{GetLockRequest, ListLockHistoryRequest, ListLocksRequest, LockEnding};
use uuid::Uuid;

use crate::world::{EVERYTHING, Grpc, WORK, World, id, reason};

#[tokio::test]
async fn locks_that_are_held_are_listed_oldest_first_in_pages() {
    let world = World::new().await;
    let (mut person, http) = world.both(&EVERYTHING);
    for name in ["c", "a", "b"] {
        assert_eq!(http.lock(name, &id()).await.status, 200);
    }
    let request = |page_token: String| ListLocksRequest {
        page_size: 2,
        page_token,
        ..Default::default()
    };
    let first = person
        .locks
        .list_locks(request(String::new()))
        .await
        .unwrap()
        .into_inner();
    let second = person
        .locks
        .list_locks(request(first.next_page_token.clone()))
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = first
        .locks
        .iter()
        .chain(&second.locks)
        .map(|held| held.state_name.as_str())
        .collect();
    assert_eq!(names, ["c", "a", "b"]);
    assert_eq!(second.next_page_token, "");
    // Those that were silent for an hour.
    let aged = "update state_locks set last_seen_at = last_seen_at - interval '2 hours' where state_id =
        (select id from states where name = 'a')";
    world.admin.batch_execute(aged).await.unwrap();
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let silent = ListLocksRequest {
        silent_since: Some(hour_ago.into()),
        ..Default::default()
    };
    let silent = person.locks.list_locks(silent).await.unwrap().into_inner().locks;
    assert_eq!(
        silent.iter().map(|held| held.state_name.as_str()).collect::<Vec<_>>(),
        ["a"]
    );
    let wrong = ListLocksRequest {
        page_size: -1,
        silent_since: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..Default::default()
    };
    let (told, fields) = reason(person.locks.list_locks(wrong).await);
    assert_eq!(
        (told.as_str(), fields),
        (
            "INVALID_REQUEST",
            vec!["silent_since".to_owned(), "page_size".to_owned()]
        )
    );
    // Another organization has none.
    let other = world.token(kit::ids::OrgId::new(), &EVERYTHING);
    let mut other = Grpc::new(world.served.with(&other));
    assert!(
        other
            .locks
            .list_locks(request(String::new()))
            .await
            .unwrap()
            .into_inner()
            .locks
            .is_empty()
    );
}

#[tokio::test]
async fn the_history_tells_who_held_what_when_and_how_it_ended() {
    let world = World::new().await;
    let (mut person, http) = world.both(&EVERYTHING);
    let (released, forced) = (id(), id());
    assert_eq!(http.lock("prod", &released).await.status, 200);
    let state_id = person.named("prod").await.id;
    let held = person
        .locks
        .get_lock(GetLockRequest {
            state_id: state_id.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    let held = held.lock.unwrap().lock.unwrap();
    assert_eq!((held.id.as_str(), held.who.as_str()), (released.as_str(), "root@vm"));
    assert_eq!(http.unlock("prod", &released).await.status, 200);
    assert_eq!(http.lock("prod", &forced).await.status, 200);
    assert_eq!(http.ask("UNLOCK", "/v1/states/prod", b"").await.status, 200);
    assert_eq!(http.lock("other", &id()).await.status, 200);
    let free = person
        .locks
        .get_lock(GetLockRequest {
            state_id: state_id.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(free.lock, None);
    let request = |page_token: String| ListLockHistoryRequest {
        page_size: 1,
        page_token,
        state_id: state_id.clone(),
    };
    let newest = person
        .locks
        .list_lock_history(request(String::new()))
        .await
        .unwrap()
        .into_inner();
    let oldest = person
        .locks
        .list_lock_history(request(newest.next_page_token.clone()))
        .await
        .unwrap()
        .into_inner();
    let (newest, oldest) = (&newest.past_locks[0], &oldest.past_locks[0]);
    assert_eq!(newest.ending(), LockEnding::Forced);
    assert_eq!(newest.ended_reason, "force-unlock by Terraform");
    assert_eq!(oldest.ending(), LockEnding::Released);
    assert_eq!(
        (oldest.ended_by_id.as_str(), oldest.ended_by_kind.as_str()),
        (held.holder_id.as_str(), "user")
    );
    let past = oldest.lock.as_ref().unwrap();
    assert_eq!(
        (past.id.as_str(), past.created_at),
        (released.as_str(), held.created_at)
    );
    assert!(oldest.ended_at.unwrap().seconds >= past.created_at.unwrap().seconds);
    let nothing = GetLockRequest {
        state_id: Uuid::now_v7().to_string(),
    };
    assert_eq!(reason(person.locks.get_lock(nothing).await).0, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn a_job_sees_its_own_states_locks_alone() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let (own, other) = (id(), id());
    assert_eq!(http.lock("own", &own).await.status, 200);
    assert_eq!(http.lock("other", &other).await.status, 200);
    let mut person = world.grpc(&EVERYTHING);
    let (own, other) = (person.named("own").await.id, person.named("other").await.id);
    let credential = world
        .served
        .office
        .job(world.org, &EVERYTHING, &Uuid::now_v7().to_string(), "own");
    let mut job = Grpc::new(world.served.with(&credential));
    let listed = job
        .locks
        .list_locks(ListLocksRequest::default())
        .await
        .unwrap()
        .into_inner()
        .locks;
    assert_eq!(listed.iter().map(|held| &held.state_id).collect::<Vec<_>>(), [&own]);
    let history = |state_id: &str| ListLockHistoryRequest {
        state_id: state_id.to_owned(),
        ..Default::default()
    };
    job.locks.list_lock_history(history(&own)).await.unwrap();
    let get = GetLockRequest {
        state_id: other.clone(),
    };
    for (told, _) in [
        reason(job.locks.get_lock(get).await),
        reason(job.locks.list_lock_history(history(&other)).await),
        reason(job.locks.list_lock_history(history("")).await),
    ] {
        assert_eq!(told, "CALLER_NOT_ALLOWED");
    }
}
