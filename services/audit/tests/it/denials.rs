//! The trail's own denials stand in the trail.

use api::{
    audit::v1::{ListAuditLogsRequest as List, audit_service_client::AuditServiceClient},
    events::v1::Outcome,
};
use expect_test::expect;
use kit::ids::{OrgId, UserId};
use testkit::render;

use crate::world::{World, wait};

#[tokio::test]
async fn who_is_refused_the_trail_stands_in_it() {
    let world = World::new().await;
    let (org, user) = (OrgId::new(), UserId::new());
    let caller = world.audit.caller_as(org, user, &["designs.*.*"]);
    render::check(
        &AuditServiceClient::new(caller).list_audit_logs(List::default()).await,
        expect![[r#"
            PermissionDenied PERMISSION_MISSING: the permission audit.audit_log.read is needed
              permission: audit.audit_log.read
              request_id: <id 1>
        "#]],
    );
    wait("the denial", async || world.count("source = 'audit'").await == 1).await;
    let asked = List {
        actor_id: user.to_string(),
        ..List::default()
    };
    let logs = world.reader(org).all(asked).await;
    let told: Vec<_> = logs
        .iter()
        .map(|log| (log.action.as_str(), log.outcome(), log.reason.as_str()))
        .collect();
    assert_eq!(told, [("audit.ListAuditLogs", Outcome::Denied, "PERMISSION_MISSING")]);
}
