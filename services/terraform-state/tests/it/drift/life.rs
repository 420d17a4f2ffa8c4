//! The life of findings: opened once, looked after, accepted, resolved, reopened.

use api::terraform_state::v1::{
    AcknowledgeDriftRequest, GetDriftLogRequest, GetDriftSummaryRequest, GetDriftSummaryResponse, ResolveDriftRequest,
};
use kit::failpoint;

use super::*;

fn sized(address: &str, size: i32) -> Value {
    update(address, json!({"size": 1}), json!({"size": size}))
}

#[tokio::test]
async fn what_is_seen_again_is_found_once() {
    let world = World::new().await;
    let state = world.state("state").await;
    let first = world.detect(&state, REFRESH_ONLY).await.unwrap();
    assert_eq!((first.new_drift_logs, first.drift_logs), (5, 5));
    let told = world.found().await;
    assert_eq!(told.len(), 5);
    let again = world.detect(&state, REFRESH_ONLY).await.unwrap();
    assert_eq!(
        (again.new_drift_logs, again.drift_logs, again.drifted_resources),
        (0, 5, 2)
    );
    assert_eq!(world.found().await, told);
    for log in world.logs(&state).await {
        assert_eq!((log.status(), log.times_seen), (DriftStatus::Open, 2));
        assert_eq!((&log.check_id, &log.last_check_id), (&first.check_id, &again.check_id));
    }
    // Without fingerprints every check would find everything anew.
    let _without = failpoint::switch_off(format!("terraform_state.drift_fingerprints/{}", world.org));
    let anew = world.detect(&state, REFRESH_ONLY).await.unwrap();
    assert_eq!((anew.new_drift_logs, anew.resolved_drift_logs), (5, 5));
    assert_eq!(world.found().await.len(), 10);
}

#[tokio::test]
async fn a_finding_lives_from_open_to_reopened() {
    let world = World::new().await;
    let state = world.state("state").await;
    let one = plan(json!([sized("fake_server.a", 2)]));
    world.detect(&state, &one).await.unwrap();
    let log = world.logs(&state).await.remove(0);
    let mut drifts = world.drifts();
    let request = AcknowledgeDriftRequest {
        drift_log_id: log.id.clone(),
        reason: "looking".to_owned(),
        request_id: Uuid::now_v7().to_string(),
    };
    for _ in 0..2 {
        let shown = drifts.acknowledge_drift(request.clone()).await.unwrap().into_inner();
        assert_eq!(shown.drift_log.unwrap().status(), DriftStatus::Acknowledged);
    }
    // It stands as it was put, and still counts.
    let seen = world.detect(&state, &one).await.unwrap();
    assert_eq!((seen.drifted_resources, seen.new_drift_logs), (1, 0));
    // Another value at the same place is another finding.
    let other = world
        .detect(&state, plan(json!([sized("fake_server.a", 3)])))
        .await
        .unwrap();
    assert_eq!((other.new_drift_logs, other.resolved_drift_logs), (1, 1));
    assert_eq!(world.stand(&state).await, ["size Open", "size Resolved"]);
    let back = world.detect(&state, &one).await.unwrap();
    assert_eq!(
        (back.reopened_drift_logs, back.new_drift_logs, back.resolved_drift_logs),
        (1, 0, 1)
    );
    let gone = world.detect(&state, plan(json!([]))).await.unwrap();
    assert_eq!((gone.drifted_resources, gone.resolved_drift_logs), (0, 1));
    let warned = "fake_server.a warning";
    assert_eq!(world.found().await, [warned, warned, "fake_server.a warning again"]);

    let found = drifts
        .get_drift_log(GetDriftLogRequest {
            drift_log_id: log.id.clone(),
        })
        .await;
    let found = found.unwrap().into_inner();
    let shown = found.drift_log.unwrap();
    assert!(shown.status() == DriftStatus::Resolved && shown.resolved_at.is_some());
    let changes: Vec<String> = found
        .changes
        .iter()
        .map(|it| {
            format!(
                "{:?} {:?} {} {}",
                it.before(),
                it.after(),
                it.reason,
                it.actor_id.is_empty()
            )
        })
        .collect();
    assert_eq!(
        changes,
        [
            "Reopened Resolved  true",
            "Resolved Reopened  true",
            "Acknowledged Resolved  true",
            "Open Acknowledged looking false",
            "Unspecified Open  true",
        ]
    );
    let resolve = ResolveDriftRequest {
        drift_log_id: log.id.clone(),
        ..Default::default()
    };
    assert_eq!(reason(drifts.resolve_drift(resolve).await).1, ["reason"]);
    let acknowledge = AcknowledgeDriftRequest {
        drift_log_id: log.id.clone(),
        ..Default::default()
    };
    assert_eq!(reason(drifts.acknowledge_drift(acknowledge).await).1, ["drift_log_id"]);
    let unknown = GetDriftLogRequest {
        drift_log_id: Uuid::now_v7().to_string(),
    };
    assert_eq!(reason(drifts.get_drift_log(unknown).await).0, "RESOURCE_NOT_FOUND");
    let stranger = DriftServiceClient::new(world.served.caller(OrgId::new(), &["terraform_state.*.*"]));
    let theirs = { stranger }
        .get_drift_log(GetDriftLogRequest { drift_log_id: log.id })
        .await;
    assert_eq!(reason(theirs).0, "RESOURCE_NOT_FOUND");
    let events = world.events().await;
    let about = events
        .iter()
        .find(|event| event.action == "terraform_state.AcknowledgeDrift")
        .unwrap();
    assert_eq!(about.resource.as_ref().unwrap().r#type, "drift_log");
}

#[tokio::test]
async fn what_is_accepted_is_no_drift_until_the_value_is_another() {
    let world = World::new().await;
    let state = world.state("state").await;
    let one = plan(json!([sized("fake_server.a", 2)]));
    world.detect(&state, &one).await.unwrap();
    let log = world.logs(&state).await.remove(0);
    assert_eq!(world.accept(&log).await.status(), DriftStatus::Accepted);
    let seen = world.detect(&state, &one).await.unwrap();
    assert_eq!(
        (seen.drifted_resources, seen.drift_logs, seen.accepted_drift_logs),
        (0, 1, 1)
    );
    assert_eq!(world.told().await.last().unwrap().drifted_resources, 0);
    let other = world
        .detect(&state, plan(json!([sized("fake_server.a", 3)])))
        .await
        .unwrap();
    assert_eq!((other.drifted_resources, other.new_drift_logs), (1, 1));
    assert_eq!(world.stand(&state).await, ["size Open", "size Resolved"]);
}

#[tokio::test]
async fn what_is_no_drift_is_counted_apart() {
    let world = World::new().await;
    let state = world.state("state").await;
    world
        .detect(&state, plan(json!([sized("fake_server.kept", 2)])))
        .await
        .unwrap();
    let policy = json!({"policy": "{\"a\":[1],\"b\":2}", "ports": [1, 2], "note": null, "n": 1});
    let written = json!({"policy": "{ \"b\": 2, \"a\": [1] }", "ports": [2, 1], "note": "", "n": 1.0});
    let mut moved = update("fake_server.new", json!({"a": 1}), json!({"a": 1}));
    moved["change"]["actions"] = json!(["no-op"]);
    moved["previous_address"] = json!("fake_server.old");
    let mut plan: Value = serde_json::from_str(&plan(json!([
        sized("fake_server.kept", 2),
        update("fake_server.noise", policy.clone(), written.clone()),
        moved,
    ])))
    .unwrap();
    let change = |address: &str, actions: Value, before: Value, after: Value| {
        json!({"address": address, "mode": "managed", "type": "fake_server",
            "change": {"actions": actions, "before": before, "after": after}})
    };
    plan["resource_changes"] = json!([
        change(
            "fake_server.kept",
            json!(["update"]),
            json!({"size": 2}),
            json!({"size": 1})
        ),
        change("fake_server.noise", json!(["no-op"]), written.clone(), written),
        change("fake_server.wanted", json!(["create"]), Value::Null, json!({"size": 1})),
    ]);
    plan["checks"] = json!([{"status": "fail", "instances": [{"status": "fail"}]}]);
    let found = world.detect(&state, plan.to_string()).await.unwrap();
    assert_eq!(
        (found.drifted_resources, found.drift_logs, found.new_drift_logs),
        (1, 1, 0)
    );
    assert_eq!(
        (
            found.normalised_resources,
            found.moved_resources,
            found.unapplied_resources,
            found.failed_checks
        ),
        (1, 1, 1, 1)
    );
    // A plan that failed says nothing: nothing is resolved by it, and nobody hears of it.
    let told = world.told().await.len();
    plan["errored"] = json!(true);
    plan["resource_drift"] = json!([]);
    let failed = world.detect(&state, plan.to_string()).await.unwrap();
    assert!(failed.errored && failed.drift_logs == 0 && failed.resolved_drift_logs == 0);
    assert_eq!(world.told().await.len(), told);
    assert_eq!(world.stand(&state).await, ["size Open"]);
    // What a provider writes differently would be drift without a look at what it means.
    let _without = failpoint::switch_off(format!("terraform_state.drift_noise/{}", world.org));
    plan["errored"] = json!(false);
    plan["resource_drift"] = json!([update(
        "fake_server.noise",
        policy,
        json!({"policy": "{ \"b\": 2, \"a\": [1] }", "ports": [2, 1], "n": 1})
    )]);
    assert!(world.detect(&state, plan.to_string()).await.unwrap().drift_logs > 0);
}

#[tokio::test]
async fn how_things_stand_is_told_in_numbers() {
    let world = World::new().await;
    let (state, other) = (world.state("one").await, world.state("two").await);
    let nothing = { world.drifts() }
        .get_drift_summary(GetDriftSummaryRequest::default())
        .await;
    assert_eq!(nothing.unwrap().into_inner(), GetDriftSummaryResponse::default());
    world.detect(&state, REFRESH_ONLY).await.unwrap();
    world
        .detect(&other, plan(json!([sized("fake_server.a", 2)])))
        .await
        .unwrap();
    world.detect(&other, plan(json!([]))).await.unwrap();
    let logs = world.logs(&state).await;
    let size = logs.iter().find(|log| log.path == "size").unwrap();
    world.accept(size).await;
    world
        .admin
        .batch_execute(
            "update drift_logs set opened_at = resolved_at - interval '90 minutes' where resolved_at is not null",
        )
        .await
        .unwrap();
    let of = async |state_id: &str| {
        let request = GetDriftSummaryRequest {
            state_id: state_id.to_owned(),
            days: 7,
        };
        { world.drifts() }
            .get_drift_summary(request)
            .await
            .unwrap()
            .into_inner()
    };
    let all = of("").await;
    let by: Vec<_> = all.by_severity.iter().map(|it| (it.severity(), it.count)).collect();
    // Gone and a password; two tags.
    assert_eq!(by, [(DriftSeverity::Critical, 2), (DriftSeverity::Info, 2)]);
    assert_eq!((all.accepted, all.ignored, all.drifted_states), (1, 0, 1));
    assert_eq!((all.checks, all.drifted_checks, all.errored_checks), (3, 2, 0));
    assert!((all.drift_rate - 2.0 / 3.0).abs() < 1e-9);
    assert_eq!((all.found, all.resolved), (6, 1));
    assert_eq!(all.mean_time_to_resolve.unwrap().seconds, 5_400);
    let one = of(&other).await;
    assert_eq!(
        (one.by_severity.len(), one.checks, one.resolved, one.drifted_states),
        (0, 2, 1, 0)
    );
    let wrong = GetDriftSummaryRequest {
        state_id: "x".to_owned(),
        days: -1,
    };
    assert_eq!(
        reason({ world.drifts() }.get_drift_summary(wrong).await).1,
        ["state_id", "days"]
    );
}
