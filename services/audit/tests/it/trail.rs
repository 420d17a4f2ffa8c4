//! The trail itself: each event exactly once, nothing lost, nothing changed.

use api::{
    audit::v1::ListAuditLogsRequest as List,
    events::v1::{Event, Outcome},
};
use audit::{leaf, model::micros};
use kit::ids::OrgId;
use prost::Message;
use testkit::Role;
use uuid::Uuid;

use crate::world::{World, event};

#[tokio::test]
async fn an_event_delivered_again_leaves_one_row() {
    let world = World::new().await;
    let org = OrgId::new();
    let events: Vec<Event> = (0..20).map(|second| event(org, second)).collect();
    world.tell(&events).await;
    let rows = "select string_agg(id::text || recorded_at::text, ',' order by id) from audit.audit_logs";
    let before: String = world.admin.query_one(rows, &[]).await.unwrap().get(0);

    // The same events once more in the producer's log, and then everything from the log's start.
    world.tell(&events).await;
    let world = world
        .restarted("delete from audit.cursors; delete from audit.inbox")
        .await;
    world.caught_up().await;
    let after: String = world.admin.query_one(rows, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
    assert_eq!(world.count("true").await, 20);
}

#[tokio::test]
async fn what_is_not_audited_leaves_no_row() {
    let world = World::new().await;
    let org = OrgId::new();
    let audited = event(org, 0);
    world
        .tell(&[
            Event {
                audited: false,
                ..event(org, 1)
            },
            audited.clone(),
            Event::default(),
        ])
        .await;
    let logs = world.reader(org).all(List::default()).await;
    assert_eq!(
        logs.into_iter().map(|log| log.id).collect::<Vec<_>>(),
        [audited.event_id]
    );
    assert_eq!(world.count("true").await, 1);
}

#[tokio::test]
async fn what_cannot_be_understood_is_kept_as_it_came() {
    let world = World::new().await;
    let org = OrgId::new();
    let long = "ä".repeat(10_000);
    let broken = [
        Event {
            actor: None,
            ..event(org, 0)
        },
        Event {
            event_id: "one".to_owned(),
            ..event(org, 1)
        },
        Event {
            occurred_at: None,
            ..event(org, 2)
        },
        Event {
            outcome: Outcome::Unspecified.into(),
            ..event(org, 3)
        },
        Event {
            action: long,
            ..event(org, 4)
        },
        Event {
            reason: "\0".to_owned(),
            ..event(org, 5)
        },
        Event {
            chain_depth: u32::MAX,
            ..event(org, 6)
        },
    ];
    world.tell(&broken).await;
    world.tell(&[event(org, 7)]).await;
    assert_eq!(world.count("kind = 'unparsed'").await, 7);
    assert_eq!(world.count("kind = 'call'").await, 1);
    let kept = world
        .admin
        .query("select envelope from audit.audit_logs where envelope is not null", &[])
        .await
        .unwrap();
    let mut kept: Vec<Vec<u8>> = kept.into_iter().map(|row| row.get(0)).collect();
    let mut told: Vec<Vec<u8>> = broken.iter().map(Event::encode_to_vec).collect();
    kept.sort();
    told.sort();
    assert_eq!(kept, told);
    let dead: i64 = world
        .admin
        .query_one("select count(*) from audit.dead_letters", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(dead, 0);
    // The organization sees that something is there, under the event's own id where it has one.
    let logs = world.reader(org).all(List::default()).await;
    assert_eq!(logs.len(), 8);
    let log = logs.iter().find(|log| log.id == broken[0].event_id).unwrap();
    assert_eq!(
        (log.actor.as_ref(), log.action.as_str(), log.outcome()),
        (None, "", Outcome::Unspecified)
    );
}

#[tokio::test]
async fn bytes_that_are_no_event_hold_up_nothing() {
    let world = World::new().await;
    let org = OrgId::new();
    world
        .tell_raw(vec![
            (Some(org), vec![0xff; 40]),
            (Some(org), event(org, 0).encode_to_vec()),
        ])
        .await;
    assert_eq!(world.count("kind = 'call'").await, 1);
    assert_eq!(world.count("kind = 'unparsed'").await, 1);
}

#[tokio::test]
async fn whatever_the_bytes_are_something_of_them_is_kept() {
    let world = World::new().await;
    let org = OrgId::new();
    let (mut state, mut told, mut rows) = (0x5eed_u64, Vec::new(), 0);
    for second in 0..300 {
        let mut bytes = event(org, second).encode_to_vec();
        for _ in 0..2 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(state >> 33).unwrap() % bytes.len();
            bytes[at] ^= 1 << (state >> 20 & 7);
        }
        rows += i64::from(Event::decode(bytes.as_slice()).is_ok_and(|event| event.audited));
        rows += i64::from(Event::decode(bytes.as_slice()).is_err());
        told.push((Some(org), bytes));
    }
    world.tell_raw(told).await;
    assert_eq!(world.count("true").await, rows);
    assert!(world.count("kind = 'call'").await > 20 && world.count("kind = 'unparsed'").await > 20);
    let dead: i64 = world
        .admin
        .query_one("select count(*) from audit.dead_letters", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(dead, 0);
}

#[tokio::test]
async fn an_id_used_by_two_events_keeps_both() {
    let world = World::new().await;
    let (org, elsewhere) = (OrgId::new(), OrgId::new());
    let told = event(org, 0);
    let forged = Event {
        action: "designs.DeleteDesign".to_owned(),
        ..told.clone()
    };
    let same_id_elsewhere = Event {
        organization_id: elsewhere.to_string(),
        ..told.clone()
    };
    for event in [&told, &forged, &told, &same_id_elsewhere] {
        // The inbox would let the first of them pass alone.
        world.admin.batch_execute("delete from audit.inbox").await.unwrap();
        world.tell(std::slice::from_ref(event)).await;
    }
    let log = world
        .reader(org)
        .get(&told.event_id)
        .await
        .unwrap()
        .into_inner()
        .audit_log
        .unwrap();
    assert_eq!(log.action, told.action);
    assert_eq!(world.count("kind = 'call'").await, 2);
    let kept = world
        .admin
        .query("select envelope from audit.audit_logs where kind = 'unparsed'", &[])
        .await
        .unwrap();
    assert_eq!(
        kept.into_iter().map(|row| row.get(0)).collect::<Vec<Vec<u8>>>(),
        [forged.encode_to_vec()]
    );
    assert_eq!(world.reader(elsewhere).all(List::default()).await.len(), 1);
}

#[tokio::test]
async fn nothing_is_changed_even_by_its_owner() {
    let world = World::new().await;
    let org = OrgId::new();
    world.tell(&[event(org, 0)]).await;
    let attempts = [
        "update audit.audit_logs set action = 'x'",
        "delete from audit.audit_logs",
        "truncate audit.audit_logs",
    ];
    for role in [Role::App, Role::Worker, Role::Migrate, Role::Admin] {
        let client = world.client(role).await;
        let enter = match role {
            Role::Migrate => "set role board3_audit_owner".to_owned(),
            // Triggers that are not ALWAYS sleep in this mode.
            Role::Admin => "set session_replication_role = replica".to_owned(),
            Role::App | Role::Worker => format!("set app.org = '{org}'"),
        };
        client.batch_execute(&enter).await.unwrap();
        for attempt in attempts {
            let error = client.batch_execute(attempt).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "42501", "{role:?}: {attempt}");
        }
    }
    let app = world.client(Role::App).await;
    app.batch_execute(&format!("set app.org = '{org}'")).await.unwrap();
    let insert = app
        .batch_execute("insert into audit_logs select * from audit_logs")
        .await
        .unwrap_err();
    assert_eq!(insert.code().unwrap().code(), "42501");
    assert_eq!(world.count("true").await, 1);
}

#[tokio::test]
async fn columns_are_what_the_leaf_input_says() {
    let world = World::new().await;
    let org = OrgId::new();
    let full = Event {
        cause_event_id: Uuid::now_v7().to_string(),
        chain_depth: 2,
        reason: "R".to_owned(),
        ..event(org, 0)
    };
    let bare = Event {
        resource: None,
        request_id: String::new(),
        idempotency_key: String::new(),
        traceparent: "nonsense".to_owned(),
        caller_address: String::new(),
        ..event(org, -5)
    };
    world
        .tell(&[
            full,
            bare,
            Event {
                actor: None,
                ..event(org, 1)
            },
        ])
        .await;
    let columns = "select leaf_input, org_id::text, id::text, kind::text, source, epoch::text, position,
        (extract(epoch from recorded_at) * 1000000)::bigint, (extract(epoch from occurred_at) * 1000000)::bigint,
        concat_ws('|', coalesce(actor_kind::text, '-'), coalesce(actor_id, '-'), coalesce(action, '-'),
          coalesce(resource_type, '-'), coalesce(resource_id, '-'), coalesce(outcome::text, '-'), coalesce(reason, '-'),
          coalesce(request_id, '-'), coalesce(idempotency_key, '-'), coalesce(trace_id, '-'),
          coalesce(caller_address, '-'), coalesce(cause_event_id, '-'), chain_depth), envelope_hash
        from audit.audit_logs";
    let rows = world.admin.query(columns, &[]).await.unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let leaf_input: Vec<u8> = row.get(0);
        let log = leaf::decode(&leaf_input).unwrap();
        assert_eq!(leaf::encode(&log), leaf_input);
        let text = |index: usize| row.get::<_, String>(index);
        assert_eq!(
            [text(1), text(2), text(3)],
            [log.org_id.to_string(), log.id.to_string(), log.kind.label().to_owned()]
        );
        assert_eq!(
            (text(4), text(5), row.get::<_, i64>(6)),
            (log.source, log.epoch.to_string(), log.position)
        );
        assert_eq!(
            (row.get::<_, i64>(7), row.get::<_, i64>(8)),
            (micros(log.recorded_at), micros(log.occurred_at))
        );
        let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let rest = [
            or(log.actor_kind.map(|kind| kind.label().to_owned())),
            or(log.actor_id),
            or(log.action),
            or(log.resource_type),
            or(log.resource_id),
            or(log.outcome.map(|outcome| outcome.label().to_owned())),
            or(log.reason),
            or(log.request_id),
            or(log.idempotency_key),
            or(log.trace_id),
            or(log.caller_address),
            or(log.cause_event_id),
            log.chain_depth.to_string(),
        ];
        assert_eq!(text(9), rest.join("|"));
        assert_eq!(row.get::<_, Option<Vec<u8>>>(10), log.envelope_hash);
    }
}

#[tokio::test]
async fn a_column_that_was_tampered_with_changes_no_answer() {
    let world = World::new().await;
    let org = OrgId::new();
    let told = event(org, 0);
    world.tell(std::slice::from_ref(&told)).await;
    let tamper = "alter table audit.audit_logs disable trigger audit_logs_append_only;
        update audit.audit_logs set action = 'designs.Nothing', actor_id = 'nobody'";
    world.admin.batch_execute(tamper).await.unwrap();
    let mut reader = world.reader(org);
    let log = reader
        .get(&told.event_id)
        .await
        .unwrap()
        .into_inner()
        .audit_log
        .unwrap();
    assert_eq!((&log.action, &log.actor), (&told.action, &told.actor));
    assert_eq!(reader.all(List::default()).await, [log]);
}
