//! Jobs: their own state, and no other.

use api::terraform_state::v1::{
    CreateStateRequest, DownloadStateRequest, GetStateRequest, ListStateVersionsRequest, ListStatesRequest, Lock,
    LockStateRequest, UnlockStateRequest, UploadStateRequest,
};
use uuid::Uuid;

use crate::world::{Grpc, WORK, World, id, lock_info, reason, state};

#[tokio::test]
async fn a_job_makes_and_uses_its_own_state() {
    let world = World::new().await;
    let design = Uuid::now_v7().to_string();
    let credential = world.served.office.job(world.org, &WORK, &design, "team/prod");
    let job = world.http_as(&credential);
    let lock = id();
    assert_eq!(job.get("team/prod").await.status, 404);
    assert_eq!(job.lock("team/prod", &lock).await.status, 200);
    assert_eq!(job.post("team/prod", &lock, &state(1, "l", "x")).await.status, 200);
    let mut person = world.grpc(&WORK);
    let made = person.named("team/prod").await;
    assert_eq!(made.design_id, design);
    let held = made.lock.unwrap();
    let job_id = world.served.office.job_id(&credential).to_string();
    assert_eq!((held.holder_kind.as_str(), held.holder_id), ("job", job_id.clone()));
    assert_eq!(made.current_version.unwrap().author_id, job_id);
    assert_eq!(job.unlock("team/prod", &lock).await.status, 200);
    // Its second attempt is another job.
    let again = world.http_as(&world.served.office.job(world.org, &WORK, &design, "team/prod"));
    assert_eq!(again.get("team/prod").await.status, 200);
}

#[tokio::test]
async fn a_job_touches_no_other_state_whether_it_is_there_or_not() {
    let world = World::new().await;
    let (mut person, http) = world.both(&WORK);
    assert_eq!(http.post("other", "", &state(1, "l", "x")).await.status, 200);
    let other = person.named("other").await.id;
    let credential = world
        .served
        .office
        .job(world.org, &["terraform_state.*.*"], &Uuid::now_v7().to_string(), "own");
    let job = world.http_as(&credential);
    for name in ["other", "nothing"] {
        for method in ["GET", "POST", "LOCK", "UNLOCK"] {
            let answer = job.ask(method, &format!("/v1/states/{name}"), b"").await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (403, "CALLER_NOT_ALLOWED"),
                "{method} {name}"
            );
        }
    }
    let mut job = Grpc::new(world.served.with(&credential));
    let state_id = || other.clone();
    let refused = [
        reason(job.states.get_state(GetStateRequest { state_id: state_id() }).await),
        reason(
            job.states
                .download_state(DownloadStateRequest {
                    state_id: state_id(),
                    version: 0,
                })
                .await
                .map(drop),
        ),
        reason(
            job.states
                .list_state_versions(ListStateVersionsRequest {
                    state_id: state_id(),
                    ..Default::default()
                })
                .await,
        ),
        reason(
            job.states
                .upload_state(tokio_stream::iter([UploadStateRequest {
                    state_id: state_id(),
                    ..Default::default()
                }]))
                .await,
        ),
        reason(
            job.states
                .create_state(CreateStateRequest {
                    name: "nothing".to_owned(),
                    ..Default::default()
                })
                .await,
        ),
        reason(
            job.states
                .create_state(CreateStateRequest {
                    name: "own".to_owned(),
                    design_id: Uuid::now_v7().to_string(),
                    ..Default::default()
                })
                .await,
        ),
        reason(
            job.locks
                .lock_state(LockStateRequest {
                    state_id: state_id(),
                    lock: Some(Lock {
                        id: id(),
                        ..Default::default()
                    }),
                    ..Default::default()
                })
                .await,
        ),
        reason(
            job.locks
                .unlock_state(UnlockStateRequest {
                    state_id: state_id(),
                    lock_id: id(),
                    ..Default::default()
                })
                .await,
        ),
    ];
    for (told, _) in refused {
        assert_eq!(told, "CALLER_NOT_ALLOWED");
    }
    let listed = job
        .states
        .list_states(ListStatesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .states;
    assert!(listed.is_empty());
    job.create("own").await.unwrap();
    let listed = job
        .states
        .list_states(ListStatesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .states;
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn a_job_touches_no_state_of_another_design_by_naming_it() {
    let world = World::new().await;
    let job = || {
        let design = Uuid::now_v7().to_string();
        world
            .served
            .office
            .job(world.org, &["terraform_state.*.*"], &design, "prod")
    };
    let (own, stranger) = (job(), job());
    let lock = id();
    assert_eq!(world.http_as(&own).lock("prod", &lock).await.status, 200);
    let written = world.http_as(&own).post("prod", &lock, &state(1, "l", "x")).await;
    assert_eq!(written.status, 200);
    let http = world.http_as(&stranger);
    for (method, body) in [
        ("GET", String::new()),
        ("POST", state(2, "l", "y")),
        ("LOCK", lock_info(&id(), "OperationTypeApply")),
        ("UNLOCK", lock_info(&lock, "OperationTypeApply")),
        ("UNLOCK", String::new()),
    ] {
        let answer = http.ask(method, "/v1/states/prod", body.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (403, "CALLER_NOT_ALLOWED"),
            "{method}"
        );
    }
    let state_id = world.grpc(&WORK).named("prod").await.id;
    let mut grpc = Grpc::new(world.served.with(&stranger));
    let get = GetStateRequest {
        state_id: state_id.clone(),
    };
    let upload = UploadStateRequest {
        state_id,
        content: state(2, "l", "y").into_bytes(),
        ..Default::default()
    };
    for (told, _) in [
        reason(grpc.states.get_state(get).await),
        reason(grpc.states.upload_state(tokio_stream::iter([upload])).await),
    ] {
        assert_eq!(told, "CALLER_NOT_ALLOWED");
    }
    let listed = grpc.states.list_states(ListStatesRequest::default()).await.unwrap();
    assert!(listed.into_inner().states.is_empty());
    assert_eq!(world.versions("prod").await, 1);
    assert_eq!(world.number("select count(*) from state_locks").await, 1);
}

#[tokio::test]
async fn a_job_writes_under_its_lock_alone() {
    let world = World::new().await;
    let credential = world
        .served
        .office
        .job(world.org, &WORK, &Uuid::now_v7().to_string(), "prod");
    let job = world.http_as(&credential);
    let refused = job.post("prod", "", &state(1, "l", "x")).await;
    assert_eq!((refused.status, refused.reason().as_str()), (409, "LOCK_MISMATCH"));
    let lock = id();
    assert_eq!(job.lock("prod", &lock).await.status, 200);
    assert_eq!(job.post("prod", &lock, &state(1, "l", "x")).await.status, 200);
}

#[tokio::test]
async fn a_job_that_nobody_can_vouch_for_is_503_and_one_that_has_ended_401() {
    let world = World::new().await;
    let credential = || {
        world
            .served
            .office
            .job(world.org, &WORK, &Uuid::now_v7().to_string(), "prod")
    };
    let ended = credential();
    world.served.office.end_job(&ended);
    assert_eq!(world.http_as(&ended).get("prod").await.status, 401);
    world.served.office.jobs_away(true);
    let answer = world.http_as(&credential()).get("prod").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "DEPENDENCY_UNAVAILABLE")
    );
    assert!(answer.header("retry-after").is_some());
}
