//! States as people keep them: labels, designs, deletion, and the resources in all of them.

use api::terraform_state::v1::{
    CreateStateRequest, DeleteStateRequest, GetStateRequest, Label, ListStateResourcesRequest, ListStatesRequest,
    Retention, State, StateResource, UndeleteStateRequest, UpdateStateRequest,
};
use prost_types::{Duration, FieldMask};
use serde_json::{Value, json};
use tonic::Status;
use uuid::Uuid;

use crate::world::{EVERYTHING, Grpc, WORK, World, blank, id, reason, state};

fn update(etag: &str, paths: &[&str], state: State) -> UpdateStateRequest {
    UpdateStateRequest {
        state_id: state.id.clone(),
        state: Some(state),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        etag: etag.to_owned(),
        request_id: id(),
    }
}

fn label(key: &str, value: &str) -> Label {
    Label {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

async fn listed(grpc: &mut Grpc, request: ListStatesRequest) -> Vec<String> {
    let states = grpc.states.list_states(request).await.unwrap().into_inner().states;
    states.into_iter().map(|state| state.name).collect()
}

#[tokio::test]
async fn what_people_say_about_a_state_changes_under_its_etag() {
    let world = World::new().await;
    let mut grpc = world.grpc(&WORK);
    let made = grpc.create("prod").await.unwrap();
    let wanted = State {
        id: made.id.clone(),
        labels: vec![label("team", "network")],
        retention: Some(Retention {
            keep_versions: 10,
            keep_days: 7,
            keep_weeks: 0,
        }),
        ..State::default()
    };
    let request = update(&made.etag, &["labels", "retention"], wanted.clone());
    let changed = grpc.states.update_state(request.clone()).await.unwrap();
    let changed = changed.into_inner().state.unwrap();
    assert_eq!((&changed.labels, changed.retention), (&wanted.labels, wanted.retention));
    assert_ne!(changed.etag, made.etag);
    // The same call again is answered the same; another one has seen too little.
    let again = grpc.states.update_state(request).await.unwrap().into_inner().state;
    assert_eq!(again.as_ref(), Some(&changed));
    let stale = update(&made.etag, &["labels"], wanted.clone());
    assert_eq!(reason(grpc.states.update_state(stale).await).0, "ETAG_MISMATCH");
    // Only what the mask names: an empty message takes labels away, and leaves the rest.
    let bare = State {
        id: made.id.clone(),
        ..State::default()
    };
    let request = update(&changed.etag, &["labels"], bare.clone());
    let emptied = grpc
        .states
        .update_state(request)
        .await
        .unwrap()
        .into_inner()
        .state
        .unwrap();
    assert_eq!((emptied.labels.len(), emptied.retention), (0, wanted.retention));
    // Locks and versions change no etag.
    let http = world.http(&WORK);
    assert_eq!(http.post("prod", "", &state(1, "l", "x")).await.status, 200);
    let shown = grpc.named("prod").await;
    assert_eq!(shown.etag, emptied.etag);
    let nowhere = State {
        design_id: Uuid::now_v7().to_string(),
        ..bare.clone()
    };
    let request = update(&shown.etag, &["design_id"], nowhere);
    assert_eq!(reason(grpc.states.update_state(request).await).0, "RESOURCE_NOT_FOUND");
    let wrong = State {
        labels: vec![label("-", ""), label("a", "ü")],
        retention: Some(Retention {
            keep_versions: 0,
            keep_days: -1,
            keep_weeks: 521,
        }),
        ..bare
    };
    let request = update("", &["labels", "retention", "name"], wrong.clone());
    assert_eq!(
        reason(grpc.states.update_state(request).await).1,
        ["etag", "update_mask"]
    );
    let request = update(&shown.etag, &["labels", "retention"], wrong);
    assert_eq!(
        reason(grpc.states.update_state(request).await).1,
        [
            "state.labels[0].key",
            "state.labels[1].value",
            "state.retention.keep_days",
            "state.retention.keep_weeks",
            "state.retention.keep_versions"
        ]
    );
}

#[tokio::test]
async fn what_is_deleted_is_gone_for_all_and_never_an_empty_state() {
    let world = World::new().await;
    let (mut grpc, http) = world.both(&EVERYTHING);
    let lock = id();
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    assert_eq!(http.post("prod", &lock, &state(1, "l", "x")).await.status, 200);
    let shown = grpc.named("prod").await;
    let delete = |etag: &str| DeleteStateRequest {
        state_id: shown.id.clone(),
        etag: etag.to_owned(),
        request_id: id(),
    };
    assert_eq!(reason(grpc.states.delete_state(delete("")).await).0, "STATE_LOCKED");
    assert_eq!(http.unlock("prod", &lock).await.status, 200);
    assert_eq!(reason(grpc.states.delete_state(delete("r0")).await).0, "ETAG_MISMATCH");
    let mut worker = world.grpc(&WORK);
    let refused = worker.states.delete_state(delete(&shown.etag)).await;
    // `terraform_state.state.*` holds the right to delete; one that only writes does not.
    refused.unwrap();
    let mut writer = world.grpc(&["terraform_state.state.write"]);
    assert_eq!(
        reason(writer.states.delete_state(delete("")).await).0,
        "PERMISSION_MISSING"
    );

    for (method, body) in [("GET", ""), ("POST", state(2, "l", "y").as_str())] {
        let answer = http.ask(method, "/v1/states/prod", body.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (410, "STATE_DELETED"),
            "{method}"
        );
    }
    assert_eq!(http.lock("prod", &id()).await.status, 410);
    assert_eq!(http.unlock("prod", &id()).await.status, 410);
    assert_eq!(http.ask("GET", "/v1/outputs/prod", b"").await.status, 410);
    let get = GetStateRequest {
        state_id: shown.id.clone(),
    };
    assert_eq!(reason(grpc.states.get_state(get.clone()).await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(
        reason(grpc.states.delete_state(delete("")).await).0,
        "RESOURCE_NOT_FOUND"
    );
    let create = CreateStateRequest {
        name: "prod".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(grpc.states.create_state(create).await).0, "RESOURCE_EXISTS");
    assert!(listed(&mut grpc, ListStatesRequest::default()).await.is_empty());
    let resources = grpc
        .states
        .list_state_resources(ListStateResourcesRequest::default())
        .await;
    assert!(resources.unwrap().into_inner().resources.is_empty());
    let deleted = ListStatesRequest {
        deleted: true,
        ..Default::default()
    };
    assert_eq!(listed(&mut grpc, deleted.clone()).await, ["prod"]);

    let undelete = || UndeleteStateRequest {
        state_id: shown.id.clone(),
        request_id: id(),
    };
    let back = grpc
        .states
        .undelete_state(undelete())
        .await
        .unwrap()
        .into_inner()
        .state
        .unwrap();
    assert_eq!((back.deleted_at, back.current_version), (None, shown.current_version));
    assert_eq!(http.get("prod").await.body, state(1, "l", "x").into_bytes());
    assert!(listed(&mut grpc, deleted).await.is_empty());
    assert_eq!(
        reason(grpc.states.undelete_state(undelete()).await).0,
        "RESOURCE_NOT_FOUND"
    );
}

#[tokio::test]
async fn states_are_found_by_who_holds_them_and_since_when_nobody_heard_of_them() {
    let world = World::new().await;
    let (mut grpc, http) = world.both(&WORK);
    for name in ["busy", "silent"] {
        assert_eq!(http.lock(name, &id()).await.status, 200);
    }
    grpc.create("free").await.unwrap();
    let old = "update state_locks set last_seen_at = now() - interval '2 hours' \
               where state_id = (select id from states where name = 'silent')";
    world.admin.batch_execute(old).await.unwrap();
    let of = |locked, seconds: Option<i64>| ListStatesRequest {
        locked,
        silent_for: seconds.map(|seconds| Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    assert_eq!(listed(&mut grpc, of(None, None)).await, ["busy", "free", "silent"]);
    assert_eq!(listed(&mut grpc, of(Some(true), None)).await, ["busy", "silent"]);
    assert_eq!(listed(&mut grpc, of(Some(false), None)).await, ["free"]);
    assert_eq!(listed(&mut grpc, of(None, Some(3600))).await, ["silent"]);
    assert!(listed(&mut grpc, of(None, Some(10_000))).await.is_empty());
    assert_eq!(
        reason(grpc.states.list_states(of(None, Some(0))).await).1,
        ["silent_for"]
    );
}

/// A state with these resources: module, mode, type, name, and how many instances.
fn with(serial: u64, resources: &[(&str, &str, &str, &str, usize)]) -> String {
    let resource = |(module, mode, resource_type, name, instances): &(&str, &str, &str, &str, usize)| {
        let instance =
            |key| json!({"index_key": format!("key-{key}-canary"), "attributes": {"secret": "value-canary"}});
        let mut resource = json!({"mode": mode, "type": resource_type, "name": name, "provider": format!("provider of {resource_type}"),
            "instances": (0..*instances).map(instance).collect::<Vec<_>>()});
        if !module.is_empty() {
            resource["module"] = Value::from(*module);
        }
        resource
    };
    let resources: Vec<_> = resources.iter().map(resource).collect();
    json!({"version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": "l", "outputs": {},
        "resources": resources, "check_results": null})
    .to_string()
}

async fn resources(grpc: &mut Grpc, request: ListStateResourcesRequest) -> Result<Vec<String>, Status> {
    let mut request = request;
    let mut all = Vec::new();
    loop {
        let page = grpc.states.list_state_resources(request.clone()).await?.into_inner();
        let line = |it: StateResource| format!("{} {} {}", it.state_name, it.address, it.instances);
        all.extend(page.resources.into_iter().map(line));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn resources_of_all_states_are_found_by_what_they_are_and_nothing_they_hold_is_kept_with_them() {
    let world = World::new().await;
    let (mut grpc, http) = world.both(&EVERYTHING);
    let net = "module.net[\"eu\"]";
    let first = with(
        1,
        &[
            (net, "managed", "aws_subnet", "a", 2),
            ("", "managed", "aws_vpc", "main", 1),
            ("", "data", "aws_ami", "base", 1),
        ],
    );
    assert_eq!(http.post("prod", "", &first).await.status, 200);
    assert_eq!(
        http.post("test", "", &with(1, &[("", "managed", "aws_vpc", "main", 3)]))
            .await
            .status,
        200
    );
    let all = ListStateResourcesRequest {
        page_size: 1,
        ..Default::default()
    };
    let (prod, test) = (grpc.named("prod").await.id, grpc.named("test").await.id);
    let vpcs = if prod < test {
        ["prod aws_vpc.main 1", "test aws_vpc.main 3"]
    } else {
        ["test aws_vpc.main 3", "prod aws_vpc.main 1"]
    };
    assert_eq!(
        resources(&mut grpc, all.clone()).await.unwrap(),
        [
            vpcs[0],
            vpcs[1],
            "prod data.aws_ami.base 1",
            "prod module.net[\"eu\"].aws_subnet.a 2"
        ]
    );
    type Condition = fn(&mut ListStateResourcesRequest);
    for (condition, expected) in [
        (
            (|request| request.r#type = "aws_subnet".to_owned()) as Condition,
            "module.net[\"eu\"].aws_subnet.a",
        ),
        (
            |request| request.module = "module.net[\"eu\"]".to_owned(),
            "module.net[\"eu\"].aws_subnet.a",
        ),
        (
            |request| request.provider = "provider of aws_ami".to_owned(),
            "data.aws_ami.base",
        ),
        (
            |request| request.address_prefix = "data.".to_owned(),
            "data.aws_ami.base",
        ),
    ] {
        let mut request = all.clone();
        condition(&mut request);
        let found = resources(&mut grpc, request).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].contains(expected), "{found:?}");
    }
    let of_test = ListStateResourcesRequest {
        state_id: test,
        ..Default::default()
    };
    assert_eq!(
        resources(&mut grpc, of_test.clone()).await.unwrap(),
        ["test aws_vpc.main 3"]
    );
    // What a write changes is changed with it; what is refused changes nothing.
    let second = with(
        2,
        &[
            ("", "managed", "aws_vpc", "main", 2),
            ("", "managed", "aws_eip", "new", 1),
        ],
    );
    assert_eq!(http.post("test", "", &second).await.status, 200);
    assert_eq!(
        resources(&mut grpc, of_test.clone()).await.unwrap(),
        ["test aws_eip.new 1", "test aws_vpc.main 2"]
    );
    assert_eq!(http.post("test", "", &with(2, &[])).await.status, 409);
    assert_eq!(resources(&mut grpc, of_test.clone()).await.unwrap().len(), 2);
    assert_eq!(http.post("test", "", &blank(3, "l")).await.status, 200);
    assert!(resources(&mut grpc, of_test.clone()).await.unwrap().is_empty());
    let canaries = "select count(*) from state_resources r where r::text like '%canary%'";
    assert_eq!(world.number(canaries).await, 0);
    let stranger = world.token(kit::ids::OrgId::new(), &EVERYTHING);
    let mut stranger = Grpc::new(world.served.with(&stranger));
    assert!(resources(&mut stranger, all).await.unwrap().is_empty());
    assert_eq!(reason(resources(&mut stranger, of_test).await).0, "RESOURCE_NOT_FOUND");
}
