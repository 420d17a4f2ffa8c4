//! StateService and LockService.

use api::{
    events::v1::{DesignChanged, event::Payload},
    terraform_state::v1::{
        CreateStateRequest, DownloadStateRequest, ForceUnlockStateRequest, GetStateRequest, ListStateVersionsRequest,
        ListStatesRequest, Lock, LockStateRequest, StateVersion, UnlockStateRequest, UploadStateRequest,
        UploadStateResponse,
    },
};
use md5::{Digest, Md5};
use tonic::Status;
use uuid::Uuid;

use crate::world::{EVERYTHING, Grpc, WORK, World, id, reason, state};

/// Uploads in parts of so many bytes.
async fn upload(
    grpc: &mut Grpc,
    first: UploadStateRequest,
    content: &str,
    part: usize,
) -> Result<UploadStateResponse, Status> {
    let mut messages = vec![first];
    for part in content.as_bytes().chunks(part) {
        messages.push(UploadStateRequest {
            content: part.to_vec(),
            ..Default::default()
        });
    }
    let first = messages.remove(1);
    messages[0].content = first.content;
    let answer = grpc.states.upload_state(tokio_stream::iter(messages)).await?;
    Ok(answer.into_inner())
}

fn to(state_id: &str) -> UploadStateRequest {
    UploadStateRequest {
        state_id: state_id.to_owned(),
        ..Default::default()
    }
}

async fn download(grpc: &mut Grpc, state_id: &str, version: i64) -> Result<(StateVersion, Vec<u8>), Status> {
    let request = DownloadStateRequest {
        state_id: state_id.to_owned(),
        version,
    };
    let mut stream = grpc.states.download_state(request).await?.into_inner();
    let (mut told, mut content) = (None, Vec::new());
    while let Some(part) = stream.message().await? {
        assert_eq!(part.version.is_some(), told.is_none());
        told = told.or(part.version);
        content.extend_from_slice(&part.content);
    }
    Ok((told.unwrap(), content))
}

fn lock(state_id: &str, lock_id: &str) -> LockStateRequest {
    LockStateRequest {
        state_id: state_id.to_owned(),
        lock: Some(Lock {
            id: lock_id.to_owned(),
            operation: "migration".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_state_is_made_once_for_a_design_that_is_there() {
    let world = World::new().await;
    let mut grpc = world.grpc(&WORK);
    let design = Uuid::now_v7().to_string();
    let new = |name: &str, request_id: &str| CreateStateRequest {
        name: name.to_owned(),
        design_id: design.clone(),
        request_id: request_id.to_owned(),
    };
    assert_eq!(
        reason(grpc.states.create_state(new("prod", "")).await).0,
        "RESOURCE_NOT_FOUND"
    );
    let changed = |revision, deleted| {
        Payload::DesignChanged(DesignChanged {
            design_id: design.clone(),
            revision,
            deleted,
            name: "d".to_owned(),
            latest_version: 0,
        })
    };
    // Made a moment ago: found without a wait of the caller's.
    world.served.office.tell_as("designs", world.org, changed(1, false));
    let request_id = id();
    let made = grpc
        .states
        .create_state(new("prod", &request_id))
        .await
        .unwrap()
        .into_inner()
        .state
        .unwrap();
    assert_eq!((made.name.as_str(), &made.design_id), ("prod", &design));
    let again = grpc
        .states
        .create_state(new("prod", &request_id))
        .await
        .unwrap()
        .into_inner()
        .state
        .unwrap();
    assert_eq!(again, made);
    assert_eq!(
        reason(grpc.states.create_state(new("prod", "")).await).0,
        "RESOURCE_EXISTS"
    );
    assert_eq!(
        reason(grpc.states.create_state(new("other", &request_id)).await).0,
        "REQUEST_ID_REUSED"
    );
    world.served.office.tell_as("designs", world.org, changed(2, true));
    world.served.office.tell_as("designs", world.org, changed(1, false));
    let gone = async {
        // Known as there until the event is applied.
        while grpc.states.create_state(new(&id(), "")).await.is_ok() {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .unwrap();
    let mut stranger = {
        let token = world.token(kit::ids::OrgId::new(), &WORK);
        Grpc::new(world.served.with(&token))
    };
    let get = GetStateRequest {
        state_id: made.id.clone(),
    };
    assert_eq!(
        reason(stranger.states.get_state(get.clone()).await).0,
        "RESOURCE_NOT_FOUND"
    );
    let shown = grpc.states.get_state(get).await.unwrap().into_inner().state.unwrap();
    assert_eq!(shown, made);
}

#[tokio::test]
async fn uploads_and_downloads_are_what_terraform_does() {
    let world = World::new().await;
    let (mut grpc, http) = world.both(&WORK);
    let made = grpc.create("team/prod").await.unwrap();
    assert_eq!(reason(download(&mut grpc, &made.id, 0).await).0, "RESOURCE_NOT_FOUND");
    let sent = state(1, "l", &"x".repeat(2_500_000));
    let first = UploadStateRequest {
        content_md5: Md5::digest(&sent).to_vec(),
        request_id: id(),
        ..to(&made.id)
    };
    let wrote = upload(&mut grpc, first.clone(), &sent, 1 << 20).await.unwrap();
    assert!(wrote.created);
    // The same call again, in other parts; and another call with the same bytes.
    assert_eq!(upload(&mut grpc, first.clone(), &sent, 100_000).await.unwrap(), wrote);
    let repeated = upload(&mut grpc, to(&made.id), &sent, 1 << 20).await.unwrap();
    assert_eq!(
        (repeated.version.clone(), repeated.created),
        (wrote.version.clone(), false)
    );
    let other = UploadStateRequest {
        content_md5: Vec::new(),
        ..first.clone()
    };
    assert_eq!(
        reason(upload(&mut grpc, other, &state(2, "l", "y"), 1 << 20).await).0,
        "REQUEST_ID_REUSED"
    );
    let wrong = UploadStateRequest {
        content_md5: vec![0; 16],
        ..to(&made.id)
    };
    assert_eq!(
        reason(upload(&mut grpc, wrong, &sent, 1 << 20).await).1,
        ["content_md5"]
    );
    assert_eq!(
        reason(upload(&mut grpc, to(&made.id), &sent, (1 << 20) + 1).await).1,
        ["content"]
    );
    let (version, content) = download(&mut grpc, &made.id, 0).await.unwrap();
    assert_eq!(
        (Some(&version), content == sent.as_bytes()),
        (wrote.version.as_ref(), true)
    );
    assert_eq!(http.get("team/prod").await.body, sent.as_bytes());
    assert_eq!(
        (
            version.number,
            version.serial,
            version.resource_count,
            version.size_bytes
        ),
        (1, 1, 1, sent.len() as i64)
    );
    assert_eq!(
        (version.lineage.as_str(), version.terraform_version.as_str()),
        ("l", "1.11.4")
    );
    // Terraform's write is a version here, and the old one stays as it was.
    assert_eq!(http.post("team/prod", "", &state(2, "l", "y")).await.status, 200);
    assert_eq!(
        download(&mut grpc, &made.id, 0).await.unwrap().1,
        state(2, "l", "y").into_bytes()
    );
    assert!(download(&mut grpc, &made.id, 1).await.unwrap().1 == sent.as_bytes());
    assert_eq!(reason(download(&mut grpc, &made.id, 3).await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(
        reason(upload(&mut grpc, to(&made.id), &state(2, "l", "z"), 1 << 20).await).0,
        "SERIAL_CONFLICT"
    );
    let shown = grpc.named("team/prod").await;
    assert_eq!(shown.current_version.unwrap().number, 2);
}

#[tokio::test]
async fn locks_over_both_protocols_are_the_same_locks() {
    let world = World::new().await;
    let (mut grpc, http) = world.both(&WORK);
    let (mut other, other_http) = world.both(&WORK);
    let made = grpc.create("prod").await.unwrap();
    let held = id();
    let taken = grpc
        .locks
        .lock_state(lock(&made.id, &held))
        .await
        .unwrap()
        .into_inner()
        .lock
        .unwrap();
    assert_eq!((taken.id.as_str(), taken.holder_kind.as_str()), (held.as_str(), "user"));
    assert_eq!(http.lock("prod", &held).await.status, 200);
    assert_eq!(other_http.lock("prod", &id()).await.status, 423);
    let refused = other.locks.lock_state(lock(&made.id, &id())).await;
    assert_eq!(reason(refused).0, "STATE_LOCKED");
    assert_eq!(
        reason(upload(&mut other, to(&made.id), &state(1, "l", "x"), 1 << 20).await).0,
        "STATE_LOCKED"
    );
    let by_id = UploadStateRequest {
        lock_id: held.clone(),
        ..to(&made.id)
    };
    assert_eq!(
        reason(upload(&mut other, by_id.clone(), &state(1, "l", "x"), 1 << 20).await).0,
        "LOCK_MISMATCH"
    );
    assert!(
        upload(&mut grpc, by_id, &state(1, "l", "x"), 1 << 20)
            .await
            .unwrap()
            .created
    );
    assert_eq!(grpc.named("prod").await.lock.unwrap().id, held);
    let unlock = UnlockStateRequest {
        state_id: made.id.clone(),
        lock_id: held.clone(),
        ..Default::default()
    };
    assert_eq!(
        reason(other.locks.unlock_state(unlock.clone()).await).0,
        "LOCK_MISMATCH"
    );
    let force = |lock_id: &str, reason: &str| ForceUnlockStateRequest {
        state_id: made.id.clone(),
        lock_id: lock_id.to_owned(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(grpc.locks.force_unlock_state(force(&held, "why")).await).0,
        "PERMISSION_MISSING"
    );
    let mut master = world.grpc(&EVERYTHING);
    assert_eq!(
        reason(master.locks.force_unlock_state(force(&id(), "why")).await).0,
        "LOCK_MISMATCH"
    );
    assert_eq!(
        reason(master.locks.force_unlock_state(force(&held, "")).await).1,
        ["reason"]
    );
    master
        .locks
        .force_unlock_state(force(&held, "gone for good"))
        .await
        .unwrap();
    assert_eq!(reason(grpc.locks.unlock_state(unlock.clone()).await).0, "LOCK_MISMATCH");
    let next = id();
    grpc.locks.lock_state(lock(&made.id, &next)).await.unwrap();
    let unlock = UnlockStateRequest {
        lock_id: next,
        ..unlock
    };
    grpc.locks.unlock_state(unlock.clone()).await.unwrap();
    grpc.locks.unlock_state(unlock).await.unwrap();
    assert_eq!(grpc.named("prod").await.lock, None);
}

#[tokio::test]
async fn lists_are_paged_by_name_and_by_number() {
    let world = World::new().await;
    let (mut grpc, http) = world.both(&WORK);
    for name in ["b", "a/2", "a/10", "A", "a", "c_d"] {
        grpc.create(name).await.unwrap();
    }
    let list = async |grpc: &mut Grpc, prefix: &str| {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let request = ListStatesRequest {
                page_size: 2,
                page_token: token,
                name_prefix: prefix.to_owned(),
                ..Default::default()
            };
            let page = grpc.states.list_states(request).await.unwrap().into_inner();
            names.extend(page.states.into_iter().map(|state| state.name));
            token = page.next_page_token;
            if token.is_empty() {
                return names;
            }
        }
    };
    assert_eq!(list(&mut grpc, "").await, ["A", "a", "a/10", "a/2", "b", "c_d"]);
    assert_eq!(list(&mut grpc, "a").await, ["a", "a/10", "a/2"]);
    assert_eq!(list(&mut grpc, "a/").await, ["a/10", "a/2"]);
    assert!(list(&mut grpc, "%").await.is_empty() && list(&mut grpc, "ä").await.is_empty());
    for serial in 1..=5 {
        assert_eq!(http.post("a", "", &state(serial, "l", "x")).await.status, 200);
    }
    let state_id = grpc.named("a").await.id;
    let (mut numbers, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListStateVersionsRequest {
            state_id: state_id.clone(),
            page_size: 2,
            page_token: token,
        };
        let page = grpc.states.list_state_versions(request).await.unwrap().into_inner();
        numbers.extend(page.versions.into_iter().map(|version| version.number));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    let foreign = ListStateVersionsRequest {
        state_id: Uuid::now_v7().to_string(),
        ..Default::default()
    };
    assert_eq!(
        reason(grpc.states.list_state_versions(foreign).await).0,
        "RESOURCE_NOT_FOUND"
    );
}

#[tokio::test]
async fn everything_wrong_is_told_at_once() {
    let world = World::new().await;
    let mut grpc = world.grpc(&EVERYTHING);
    let create = CreateStateRequest {
        name: "/x".to_owned(),
        design_id: "x".to_owned(),
        request_id: "x".to_owned(),
    };
    let (told, fields) = reason(grpc.states.create_state(create).await);
    assert_eq!((told.as_str(), fields.len()), ("INVALID_REQUEST", 3));
    let upload_to = UploadStateRequest {
        state_id: "x".to_owned(),
        lock_id: "\n".to_owned(),
        content_md5: vec![1],
        content: vec![0; (1 << 20) + 1],
        ..Default::default()
    };
    let answer = grpc.states.upload_state(tokio_stream::iter([upload_to])).await;
    assert_eq!(reason(answer).1, ["state_id", "lock_id", "content_md5", "content"]);
    let empty = grpc
        .states
        .upload_state(tokio_stream::iter(Vec::<UploadStateRequest>::new()))
        .await;
    assert_eq!(reason(empty).1, ["message"]);
    let long = LockStateRequest {
        state_id: String::new(),
        lock: Some(Lock {
            operation: "x".repeat(129),
            who: "x".repeat(257),
            info: "x".repeat(1025),
            terraform_version: "x".repeat(65),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(reason(grpc.locks.lock_state(long).await).1.len(), 6);
    let list = ListStatesRequest {
        page_size: -1,
        design_id: "x".to_owned(),
        name_prefix: "x".repeat(201),
        ..Default::default()
    };
    assert_eq!(reason(grpc.states.list_states(list).await).1.len(), 3);
    let download = DownloadStateRequest {
        state_id: String::new(),
        version: -1,
    };
    assert_eq!(reason(grpc.states.download_state(download).await).1.len(), 2);
}
