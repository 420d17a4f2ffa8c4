//! Design, state and reality, side by side.

use super::*;

pub(super) const NORMAL: &str = include_str!("../../plans/normal.json");

#[tokio::test]
async fn a_normal_plan_shows_what_design_state_and_reality_say() {
    let world = World::new().await;
    let state = world.state("state").await;
    assert!(world.view(&state).await.is_empty());
    let mut plan: Value = serde_json::from_str(NORMAL).unwrap();
    let change = |plan: &mut Value, address: &str, key: &str, value: Value| {
        let changes = plan["resource_changes"].as_array_mut().unwrap();
        let found = changes.iter_mut().find(|it| it["address"] == json!(address)).unwrap();
        found["change"]["actions"] = json!(["update"]);
        found["change"]["after"][key] = value;
    };
    change(&mut plan, "fake_server.n[0]", "size", json!(4));
    change(&mut plan, "fake_server.web", "size", json!(8));
    change(&mut plan, "fake_server.web", "password", json!("wanted-secret"));
    let found = world.detect(&state, plan.to_string()).await.unwrap();
    assert_eq!(found.unapplied_resources, 2);
    let rows: Vec<String> = world.view(&state).await.iter().map(row).collect();
    assert_eq!(
        rows[..7],
        [
            "fake_server.gone : Missing - - -",
            "fake_server.n[0] size: PendingApply 4 - -",
            "fake_server.n[1] : InSync - - -",
            "fake_server.web password: Conflict masked",
            "fake_server.web size: AdoptedOutside 8 2 8",
            "fake_server.web tags[\"env\"]: Drifted dev dev prod",
            "fake_server.web tags[\"owner\"]: Drifted - - mallory",
        ]
    );
    let mut request = GetThreeWayViewRequest {
        state_id: state.clone(),
        cause: DriftCause::Drifted.into(),
        page_size: 1,
        ..Default::default()
    };
    let first = { world.drifts() }
        .get_three_way_view(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (first.rows.len(), &first.check_id, first.truncated),
        (1, &found.check_id, false)
    );
    request.page_token = first.next_page_token;
    let second = { world.drifts() }
        .get_three_way_view(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(second.rows[0].path, "tags[\"owner\"]");
    assert!(second.next_page_token.is_empty());
    let request = GetThreeWayViewRequest {
        state_id: state.clone(),
        address: "fake_server.n[1]".to_owned(),
        ..Default::default()
    };
    let one = { world.drifts() }
        .get_three_way_view(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(one.rows.len(), 1);
    // The next check's view takes its place; one that failed has none.
    plan["errored"] = json!(true);
    world.detect(&state, plan.to_string()).await.unwrap();
    assert_eq!(world.view(&state).await.len(), rows.len());
    world.detect(&state, super::plan(json!([]))).await.unwrap();
    assert!(world.view(&state).await.is_empty());
}

#[tokio::test]
async fn of_a_refresh_only_plan_the_design_is_what_is_written_as_a_constant() {
    let world = World::new().await;
    let state = world.state("state").await;
    world.detect(&state, REFRESH_ONLY).await.unwrap();
    let rows: Vec<String> = world.view(&state).await.iter().map(row).collect();
    for expected in [
        "fake_server.gone : Missing - - -",
        "fake_server.web size: Drifted 2 2 8",
        "fake_server.web password: Unknown masked",
        "fake_server.web tags[\"env\"]: Unknown - dev prod",
        "fake_server.n[0] : Unknown - - -",
    ] {
        assert!(rows.iter().any(|row| row == expected), "{expected}: {rows:#?}");
    }
}
