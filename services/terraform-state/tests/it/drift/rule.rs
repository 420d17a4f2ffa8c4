//! Rules: what is ignored for a time, and how bad drift is.

use std::time::{Duration, SystemTime};

use api::terraform_state::v1::{DeleteDriftRuleRequest, ListDriftRulesRequest};

use super::*;

fn after(time: Duration) -> Option<prost_types::Timestamp> {
    Some((SystemTime::now() + time).into())
}

#[tokio::test]
async fn what_a_rule_ignores_is_open_again_when_the_rule_has_ended() {
    let world = World::new().await;
    let state = world.state("state").await;
    let tags = DriftRule {
        path: "tags[*".to_owned(),
        ignore: true,
        reason: "the cost team tags by hand".to_owned(),
        expires_at: after(Duration::from_secs(3_600)),
        ..Default::default()
    };
    let rule = world.rule(tags).await.unwrap();
    let found = world.detect(&state, REFRESH_ONLY).await.unwrap();
    assert_eq!(
        (found.drift_logs, found.ignored_drift_logs, found.drifted_resources),
        (5, 2, 2)
    );
    assert_eq!(world.found().await.len(), 3);
    let gone = DriftRule {
        address: "fake_server.gone".to_owned(),
        kind: DriftKind::Deleted.into(),
        state_id: state.clone(),
        ignore: true,
        reason: "on purpose".to_owned(),
        expires_at: after(Duration::from_secs(3_600)),
        ..Default::default()
    };
    let gone = world.rule(gone).await.unwrap();
    let found = world.detect(&state, REFRESH_ONLY).await.unwrap();
    assert_eq!((found.ignored_drift_logs, found.drifted_resources), (3, 1));
    let other = world.state("other").await;
    assert_eq!(world.detect(&other, REFRESH_ONLY).await.unwrap().ignored_drift_logs, 2);

    // One runs out, the other is taken away: both are told as if they had been found now.
    let expire = format!(
        "update drift_rules set expires_at = now() - interval '1 second' where id = '{}'",
        rule.id
    );
    assert_eq!(world.admin.execute(&expire, &[]).await.unwrap(), 1);
    let delete = DeleteDriftRuleRequest {
        drift_rule_id: gone.id.clone(),
        request_id: Uuid::now_v7().to_string(),
    };
    let mut drifts = world.drifts();
    for _ in 0..2 {
        drifts.delete_drift_rule(delete.clone()).await.unwrap();
    }
    let told = world.found().await.len();
    let found = world.detect(&state, REFRESH_ONLY).await.unwrap();
    assert_eq!(
        (found.ignored_drift_logs, found.drifted_resources, found.new_drift_logs),
        (0, 2, 0)
    );
    assert_eq!(world.found().await.len(), told + 3);
    let listed = drifts.list_drift_rules(ListDriftRulesRequest::default()).await;
    let listed: Vec<String> = listed
        .unwrap()
        .into_inner()
        .drift_rules
        .into_iter()
        .map(|it| it.id)
        .collect();
    assert_eq!(listed, [rule.id]);
    let unknown = DeleteDriftRuleRequest {
        drift_rule_id: gone.id,
        ..Default::default()
    };
    assert_eq!(reason(drifts.delete_drift_rule(unknown).await).0, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn an_organization_says_how_bad_drift_is() {
    let world = World::new().await;
    let state = world.state("state").await;
    let severity = async || -> Vec<(String, DriftSeverity)> {
        world.detect(&state, REFRESH_ONLY).await.unwrap();
        let logs = world.logs(&state).await.into_iter();
        logs.map(|log| (log.path.clone(), log.severity())).collect()
    };
    let of = |path: &str, severity| (path.to_owned(), severity);
    assert_eq!(
        severity().await,
        [
            of("", DriftSeverity::Critical),
            of("password", DriftSeverity::Critical),
            of("size", DriftSeverity::Warning),
            of("tags[\"env\"]", DriftSeverity::Info),
            of("tags[\"owner\"]", DriftSeverity::Info),
        ]
    );
    let rule = |path: &str, severity: DriftSeverity| DriftRule {
        path: path.to_owned(),
        resource_type: "fake_*".to_owned(),
        severity: severity.into(),
        reason: "ours to say".to_owned(),
        ..Default::default()
    };
    world.rule(rule("size", DriftSeverity::Info)).await.unwrap();
    world.rule(rule("tags*", DriftSeverity::Warning)).await.unwrap();
    // The newest goes first.
    world.rule(rule("tags*owner*", DriftSeverity::Critical)).await.unwrap();
    assert_eq!(
        severity().await[2..],
        [
            of("size", DriftSeverity::Info),
            of("tags[\"env\"]", DriftSeverity::Warning),
            of("tags[\"owner\"]", DriftSeverity::Critical),
        ]
    );
    let listed = async |status: DriftStatus, severity: DriftSeverity| {
        let request = ListDriftLogsRequest {
            status: status.into(),
            severity: severity.into(),
            ..Default::default()
        };
        world.page(request).await.unwrap().drift_logs.len()
    };
    assert_eq!(listed(DriftStatus::Open, DriftSeverity::Critical).await, 3);
    assert_eq!(listed(DriftStatus::Resolved, DriftSeverity::Unspecified).await, 0);
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_rule_is_told() {
    let world = World::new().await;
    let wrong = DriftRule {
        state_id: "x".to_owned(),
        address: "a".repeat(513),
        kind: 9,
        severity: 9,
        expires_at: after(Duration::from_secs(400 * 86_400)),
        ..Default::default()
    };
    assert_eq!(
        reason(world.rule(wrong).await).1,
        ["state_id", "address", "reason", "kind", "severity", "expires_at"].map(|field| format!("drift_rule.{field}"))
    );
    let reasoned = || DriftRule {
        reason: "x".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(world.rule(reasoned()).await).1, ["drift_rule.severity"]);
    let for_ever = DriftRule {
        ignore: true,
        ..reasoned()
    };
    assert_eq!(reason(world.rule(for_ever).await).1, ["drift_rule.expires_at"]);
    let elsewhere = DriftRule {
        state_id: Uuid::now_v7().to_string(),
        severity: DriftSeverity::Info.into(),
        ..reasoned()
    };
    assert_eq!(reason(world.rule(elsewhere).await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(world.number("select count(*) from drift_rules").await, 0);
}
