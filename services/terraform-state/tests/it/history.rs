//! Versions that are there: brought back, compared, and their outputs.

use api::{
    events::v1::event::Payload,
    terraform_state::v1::{
        DiffStateVersionsRequest, GetOutputsRequest, InstanceDifference, RevealOutputsRequest, RollbackStateRequest,
        StateDiff, StateVersionKind,
    },
};
use kit::failpoint;
use prost_types::value::Kind;
use serde_json::json;

use crate::world::{EVERYTHING, Grpc, Http, WORK, World, id, reason, state};

const OUTPUTS: [&str; 1] = ["terraform_state.output.read"];

fn back(state_id: &str, version: i64) -> RollbackStateRequest {
    RollbackStateRequest {
        state_id: state_id.to_owned(),
        version,
        request_id: id(),
        ..Default::default()
    }
}

/// A state of two versions, and its id.
async fn twice(world: &World, name: &str) -> (Grpc, Http, String) {
    let (mut grpc, http) = world.both(&EVERYTHING);
    for (serial, value) in [(1, "one"), (2, "two")] {
        assert_eq!(http.post(name, "", &state(serial, "l", value)).await.status, 200);
    }
    let state_id = grpc.named(name).await.id;
    (grpc, http, state_id)
}

#[tokio::test]
async fn a_rollback_is_a_new_version_with_a_serial_that_never_was() {
    let world = World::new().await;
    let (mut grpc, http, state_id) = twice(&world, "prod").await;
    let rehearsal = RollbackStateRequest {
        dry_run: true,
        ..back(&state_id, 1)
    };
    let shown = grpc.states.rollback_state(rehearsal).await.unwrap().into_inner();
    assert_eq!(
        (shown.version, shown.serial, world.versions("prod").await),
        (None, 3, 2)
    );
    let diff = shown.diff.unwrap();
    assert_eq!(
        (diff.changed, diff.instances[0].attributes[0].path.as_str()),
        (1, "input")
    );

    let request = RollbackStateRequest {
        current_version: 2,
        ..back(&state_id, 1)
    };
    let answer = grpc.states.rollback_state(request.clone()).await.unwrap().into_inner();
    let written = answer.version.clone().unwrap();
    assert_eq!((written.number, written.serial, answer.serial), (3, 3, 3));
    assert_eq!(written.kind(), StateVersionKind::Rollback);
    // Byte by byte what it was, but for the serial.
    let expected = state(1, "l", "one").replacen("\"serial\": 1", "\"serial\": 3", 1);
    assert_eq!(http.get("prod").await.body, expected.into_bytes());
    let again = grpc.states.rollback_state(request).await.unwrap().into_inner();
    assert_eq!((again, world.versions("prod").await), (answer, 3));
    let told = world
        .events()
        .await
        .into_iter()
        .filter_map(|event| match event.payload {
            Some(Payload::StateWritten(written)) => Some((written.version, written.serial)),
            _ => None,
        });
    assert_eq!(told.collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 3)]);

    let seen_too_little = RollbackStateRequest {
        current_version: 2,
        ..back(&state_id, 1)
    };
    assert_eq!(
        reason(grpc.states.rollback_state(seen_too_little).await).0,
        "SERIAL_CONFLICT"
    );
    assert_eq!(
        reason(grpc.states.rollback_state(back(&state_id, 3)).await).1,
        ["version"]
    );
    assert_eq!(
        reason(grpc.states.rollback_state(back(&state_id, 4)).await).0,
        "RESOURCE_NOT_FOUND"
    );
    let mut editor = world.grpc(&["terraform_state.state.write", "terraform_state.state.download"]);
    assert_eq!(
        reason(editor.states.rollback_state(back(&state_id, 1)).await).0,
        "PERMISSION_MISSING"
    );
    // Terraform goes on from there.
    assert_eq!(http.post("prod", "", &state(4, "l", "four")).await.status, 200);
}

#[tokio::test]
async fn nobody_goes_back_while_somebody_holds_the_state() {
    let world = World::new().await;
    let (mut grpc, http, state_id) = twice(&world, "prod").await;
    let lock = id();
    assert_eq!(http.lock("prod", &lock).await.status, 200);
    for dry_run in [true, false] {
        let request = RollbackStateRequest {
            dry_run,
            ..back(&state_id, 1)
        };
        assert_eq!(reason(grpc.states.rollback_state(request).await).0, "STATE_LOCKED");
    }
    assert_eq!(http.post("prod", &lock, &state(3, "l", "three")).await.status, 200);
}

#[tokio::test]
async fn without_that_an_apply_loses_what_it_has_done() {
    let world = World::new().await;
    let _off = failpoint::switch_off("terraform_state.rollback_lock/applied");
    let (mut grpc, http, state_id) = twice(&world, "applied").await;
    let lock = id();
    assert_eq!(http.lock("applied", &lock).await.status, 200);
    grpc.states.rollback_state(back(&state_id, 1)).await.unwrap();
    assert_eq!(http.post("applied", &lock, &state(3, "l", "three")).await.status, 409);
}

#[tokio::test]
async fn what_opentofu_encrypted_comes_back_as_it_was_and_only_to_who_knows_what_that_means() {
    let world = World::new().await;
    let (mut grpc, http) = world.both(&EVERYTHING);
    let opaque = |serial: u64| {
        json!({"serial": serial, "lineage": "l", "meta": {"k": "v"}, "encrypted_data": format!("AAAA{serial}"),
            "encryption_version": "v0"})
        .to_string()
    };
    for serial in [5, 6] {
        assert_eq!(http.post("prod", "", &opaque(serial)).await.status, 200);
    }
    let state_id = grpc.named("prod").await.id;
    assert_eq!(
        reason(grpc.states.rollback_state(back(&state_id, 1)).await).1,
        ["accept_unsafe_plans"]
    );
    assert_eq!(world.versions("prod").await, 2);
    let accepted = RollbackStateRequest {
        accept_unsafe_plans: true,
        ..back(&state_id, 1)
    };
    let answer = grpc.states.rollback_state(accepted).await.unwrap().into_inner();
    assert_eq!(
        (answer.serial, http.get("prod").await.body),
        (5, opaque(5).into_bytes())
    );
    let outputs = GetOutputsRequest {
        state_id: state_id.clone(),
        ..Default::default()
    };
    assert_eq!(reason(grpc.states.get_outputs(outputs).await).1, ["version"]);
    assert_eq!(
        reason(grpc.states.diff_state_versions(between(&state_id, 1, "", 2)).await).1,
        ["from_version"]
    );
    assert_eq!(http.ask("GET", "/v1/outputs/prod", b"").await.status, 400);
}

fn between(state_id: &str, from: i64, to_state: &str, to: i64) -> DiffStateVersionsRequest {
    DiffStateVersionsRequest {
        state_id: state_id.to_owned(),
        from_version: from,
        to_state_id: to_state.to_owned(),
        to_version: to,
        ..Default::default()
    }
}

/// A state with two servers and an output.
fn servers(serial: u64, size: u64, password: &str, name: &str) -> String {
    let server = |name: &str, size: u64, password: &str| {
        json!({"mode": "managed", "type": "fake_server", "name": name, "provider": "p",
            "instances": [{"schema_version": 0, "attributes": {"id": name, "size": size, "password": password},
                "sensitive_attributes": [], "private": "cHJpdmF0ZS1jYW5hcnk="}]})
    };
    json!({"version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": "l",
        "outputs": {"size": {"value": size, "type": "number"}, "login": {"value": password, "type": "string", "sensitive": true}},
        "resources": [server("a", size, password), server(name, 1, "same")], "check_results": null})
    .to_string()
}

#[tokio::test]
async fn versions_are_compared_attribute_by_attribute_and_secrets_only_told_apart() {
    let world = World::new().await;
    let (mut grpc, http) = world.both(&WORK);
    for content in [
        servers(1, 1, "canary-one", "b"),
        servers(2, 2, "canary-two", "c"),
        servers(3, 2, "canary-one", "c"),
    ] {
        assert_eq!(http.post("prod", "", &content).await.status, 200);
    }
    assert_eq!(
        http.post("test", "", &servers(1, 9, "canary-one", "b")).await.status,
        200
    );
    let (prod, test) = (grpc.named("prod").await.id, grpc.named("test").await.id);
    let mut differ = world.grpc(&["terraform_state.diff.read"]);
    let mut diff = async |request| -> StateDiff {
        differ
            .states
            .diff_state_versions(request)
            .await
            .unwrap()
            .into_inner()
            .diff
            .unwrap()
    };
    let first = diff(between(&prod, 1, "", 2)).await;
    assert_eq!(
        (first.added, first.removed, first.changed, first.unchanged),
        (1, 1, 1, 0)
    );
    let [a, b, c] = first.instances.as_slice() else {
        panic!("three are different")
    };
    let addresses = [a, b, c].map(|instance: &InstanceDifference| instance.address.as_str());
    assert_eq!(addresses, ["fake_server.a", "fake_server.b", "fake_server.c"]);
    let [password, size] = a.attributes.as_slice() else {
        panic!("two attributes are different")
    };
    assert!(password.masked && password.before.is_none() && password.after.is_none());
    assert_eq!((password.before_hash.len(), password.after_hash.len()), (16, 16));
    let number = |value: &Option<prost_types::Value>| value.clone().unwrap().kind.unwrap();
    assert_eq!(
        (number(&size.before), number(&size.after)),
        (Kind::NumberValue(1.0), Kind::NumberValue(2.0))
    );
    let outputs: Vec<_> = first.outputs.iter().map(|it| (it.name.as_str(), it.masked)).collect();
    assert_eq!(outputs, [("login", true), ("size", false)]);
    assert!(!format!("{first:?}").contains("canary"));
    // The password of the third version is that of the first again, and that of another state.
    let second = diff(between(&prod, 2, "", 0)).await;
    assert_eq!(second.instances[0].attributes[0].after_hash, password.before_hash);
    let across = diff(between(&prod, 1, &test, 0)).await;
    assert_eq!((across.changed, across.unchanged), (1, 1));
    assert_eq!(across.instances[0].attributes[0].path, "size");
    let same = diff(between(&prod, 1, "", 1)).await;
    assert_eq!((same.unchanged, same.instances.len(), same.outputs.len()), (2, 0, 0));
    let narrow = DiffStateVersionsRequest {
        address_prefix: "fake_server.b".to_owned(),
        ..between(&prod, 1, "", 2)
    };
    let narrow = diff(narrow).await;
    assert_eq!(
        (narrow.instances.len(), narrow.removed, narrow.outputs.len()),
        (1, 1, 0)
    );
    let mut reader = world.grpc(&["terraform_state.state.read"]);
    assert_eq!(
        reason(reader.states.diff_state_versions(between(&prod, 1, "", 2)).await).0,
        "PERMISSION_MISSING"
    );
}

#[tokio::test]
async fn outputs_are_masked_unless_the_caller_may_see_secrets() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let content = servers(1, 1, "canary-one", "b");
    assert_eq!(http.post("team/prod", "", &content).await.status, 200);
    let state_id = world.grpc(&WORK).named("team/prod").await.id;
    let (mut reader, reads) = world.both(&OUTPUTS);
    let asked = GetOutputsRequest {
        state_id: state_id.clone(),
        version: 0,
    };
    let all = RevealOutputsRequest { state_id, version: 1 };
    let shown = reader.states.get_outputs(asked).await.unwrap().into_inner();
    let lines: Vec<_> = shown
        .outputs
        .iter()
        .map(|it| (it.name.as_str(), it.masked, it.sensitive))
        .collect();
    assert_eq!(lines, [("login", true, true), ("size", false, false)]);
    assert_eq!(shown.outputs[1].r#type, "\"number\"");
    assert_eq!(shown.version.clone().unwrap().number, 1);
    assert!(!format!("{shown:?}").contains("canary"));
    assert_eq!(
        reason(reader.states.reveal_outputs(all.clone()).await).0,
        "PERMISSION_MISSING"
    );
    let (mut trusted, trusts) = world.both(&["terraform_state.output.*"]);
    let shown = trusted.states.reveal_outputs(all).await.unwrap().into_inner();
    let value = shown.outputs[0].value.clone().unwrap().kind;
    assert_eq!(
        (value, shown.outputs[0].masked),
        (Some(Kind::StringValue("canary-one".to_owned())), false)
    );

    // Terraform reads a state without resources; one who may read outputs alone is never given it as the state itself.
    let answer = reads.ask("GET", "/v1/outputs/team/prod", b"").await;
    assert_eq!(
        answer.json(),
        json!({"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "l",
            "outputs": {"size": {"value": 1, "type": "number"}}, "resources": [], "check_results": null})
    );
    assert_eq!(reads.get("team/prod").await.status, 403);
    let answer = trusts.ask("GET", "/v1/outputs/team/prod", b"").await;
    assert_eq!(answer.json()["outputs"]["login"]["value"], "canary-one");
    for method in ["POST", "LOCK", "DELETE"] {
        assert_eq!(
            reads.ask(method, "/v1/outputs/team/prod", b"").await.status,
            405,
            "{method}"
        );
    }
    assert_eq!(reads.ask("GET", "/v1/outputs/none", b"").await.status, 404);
    assert_eq!(http.lock("locked", &id()).await.status, 200);
    assert_eq!(reads.ask("GET", "/v1/outputs/locked", b"").await.status, 404);
    assert_eq!(
        world
            .http(&["terraform_state.state.read"])
            .ask("GET", "/v1/outputs/team/prod", b"")
            .await
            .status,
        403
    );
}
