//! The trail: one row for each audited success and each denial, none for anything else.

use std::time::Duration;

use api::{
    audit::v1::{ListAuditLogsRequest, ListAuditLogsResponse},
    events::v1::Outcome,
    identity::v1::{InviteMemberRequest, LoginRequest},
    policy::{METHODS, Scope},
};
use kit::Reason;
use prost::Message;
use uuid::Uuid;

use super::{
    Prepared, prepared,
    wire::{self, send},
    world::{World, method, places},
};
use crate::house::eventually;

fn new_id() -> String {
    format!("trail-{}", Uuid::now_v7())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audited_success_leaves_one_row_and_a_read_none() {
    let world = World::new().await;
    let calls = prepared(&world, &world.a).await;
    let mut ids = Vec::new();
    for Prepared {
        method,
        valid,
        credential,
        ..
    } in &calls
    {
        let id = new_id();
        send(
            world.channel(places(method)[0]),
            method.path,
            credential,
            Some(valid.now()),
            &id,
        )
        .await
        .ok();
        ids.push(id);
    }
    for (Prepared { method, valid, .. }, id) in calls.iter().zip(&ids) {
        if !method.audited || method.scope != Scope::Organization || valid.elsewhere {
            continue;
        }
        // As the organization itself reads it.
        let list = super::world::method("audit.ListAuditLogs");
        let filter = ListAuditLogsRequest {
            request_id: id.clone(),
            ..ListAuditLogsRequest::default()
        };
        let logs = eventually(method.action, Duration::from_secs(10), async || {
            let answer = world.call(list, &world.a.owner.access, &filter.encode_to_vec()).await;
            let logs = ListAuditLogsResponse::decode(answer.ok())
                .expect("an answer of the RPC")
                .audit_logs;
            (!logs.is_empty()).then_some(logs)
        })
        .await;
        let [log] = logs.as_slice() else {
            panic!("{}: {} rows", method.action, logs.len())
        };
        assert_eq!(
            (log.action.as_str(), log.outcome(), log.reason.as_str()),
            (method.action, Outcome::Success, "")
        );
        assert!(
            log.resource
                .as_ref()
                .is_some_and(|about| !about.r#type.is_empty() && !about.id.is_empty()),
            "{log:?}"
        );
        assert!(log.actor.as_ref().is_some_and(|actor| !actor.id.is_empty()), "{log:?}");
        assert_eq!(log.idempotency_key.is_empty(), !method.takes_request_id, "{log:?}");
    }
    world.quiet().await;
    for (Prepared { method, valid, .. }, id) in calls.iter().zip(&ids) {
        let mut rows = world.trail(id).await;
        // A call may do more than its own action: whoever deletes a user also ends the memberships.
        rows.retain(|[_, action, ..]| METHODS.iter().any(|method| method.action == *action));
        assert_eq!(rows.len(), usize::from(method.audited), "{}: {rows:?}", method.action);
        let Some([org, action, outcome, reason, actor, about]) = rows.first() else {
            continue;
        };
        assert_eq!(
            (action.as_str(), outcome.as_str(), reason.as_str()),
            (method.action, "success", "")
        );
        assert!(!about.is_empty() && !actor.is_empty(), "{rows:?}");
        match method.scope {
            Scope::Organization if valid.elsewhere => assert_eq!(actor, "user", "{}", method.action),
            Scope::Organization => assert_eq!(
                (org, actor.as_str()),
                (&world.a.owner.org, "api_key"),
                "{}",
                method.action
            ),
            Scope::User => assert_eq!(actor, "user", "{}", method.action),
            Scope::Public | Scope::Peer => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_leaves_one_row_and_a_failure_none() {
    let world = World::new().await;
    let calls = prepared(&world, &world.a).await;
    let (org, all) = (&world.a.owner.org, world.key(&world.a, &["*.*.*"]).await);
    let mut wanted: Vec<(String, &'static str, Option<Reason>)> = Vec::new();
    for Prepared {
        method,
        valid,
        credential,
        ..
    } in &calls
    {
        let (denied, reason) = match method.scope {
            Scope::Public => (None, Reason::CredentialInvalid),
            Scope::User => (Some(all.clone()), Reason::CallerNotAllowed),
            Scope::Organization => (
                Some(world.key_without(&world.a, method.permission).await),
                Reason::PermissionMissing,
            ),
            Scope::Peer => (Some(world.a.owner.access.clone()), Reason::CallerNotAllowed),
        };
        for slice in places(method) {
            let channel = world.channel(slice);
            if let Some(denied) = &denied {
                let id = new_id();
                send(channel, method.path, denied, Some(valid.message.clone()), &id)
                    .await
                    .refused(reason);
                wanted.push((id, method.action, Some(reason)));
            }
            if method.scope != Scope::Public {
                let id = new_id();
                let answer = send(channel, method.path, "garbage", Some(valid.message.clone()), &id).await;
                answer.refused(Reason::CredentialInvalid);
                wanted.push((id, method.action, None));
            }
            let id = new_id();
            send(channel, method.path, credential, None, &id)
                .await
                .refused(Reason::InvalidRequest);
            wanted.push((id, method.action, None));
        }
    }
    // A failed login is a row of the account's organization.
    let login = method("identity.Login");
    let request = LoginRequest {
        email: world.a.owner.email.clone(),
        password: "not the password".to_owned(),
        ..Default::default()
    };
    let id = new_id();
    send(
        world.channel("identity"),
        login.path,
        "",
        Some(request.encode_to_vec()),
        &id,
    )
    .await
    .refused(Reason::LoginFailed);
    wanted.push((id, login.action, Some(Reason::LoginFailed)));

    // So is what a handler denies.
    let invite = method("identity.InviteMember");
    let request = InviteMemberRequest {
        email: "somebody@example.test".to_owned(),
        role: "owner".to_owned(),
        ..Default::default()
    };
    let key = world.credential(invite, &world.a).await;
    let id = new_id();
    send(
        world.channel("identity"),
        invite.path,
        &key,
        Some(request.encode_to_vec()),
        &id,
    )
    .await
    .refused(Reason::Escalation);
    wanted.push((id, invite.action, Some(Reason::Escalation)));

    world.quiet().await;
    for (id, action, reason) in &wanted {
        let rows = world.trail(id).await;
        let told = reason.map(|reason| {
            let outcome = if reason == Reason::LoginFailed {
                "failure"
            } else {
                "denied"
            };
            (
                org.clone(),
                (*action).to_owned(),
                outcome.to_owned(),
                kit::error::name(reason).to_owned(),
            )
        });
        let found: Vec<_> = rows
            .iter()
            .map(|[org, action, outcome, reason, ..]| (org.clone(), action.clone(), outcome.clone(), reason.clone()))
            .collect();
        assert_eq!(found, told.into_iter().collect::<Vec<_>>(), "{action}");
    }
    for Prepared {
        method,
        valid,
        credential,
        ..
    } in &calls
    {
        wire::call(world.channel(places(method)[0]), method.path, credential, &valid.now())
            .await
            .ok();
    }
}
