//! Notifications: one for each event that people should hear of, and who has read it.

use api::{
    audit::v1::{
        ListNotificationsRequest as List, MarkReadRequest, MarkReadResponse, Notification, NotificationKind,
        notification_service_client::NotificationServiceClient,
    },
    events::v1::{Actor, ActorKind, DriftChecked, DriftFound, Event, ExecutionChanged, event::Payload},
};
use expect_test::expect;
use kit::ids::{OrgId, UserId};
use testkit::{Caller, Role, render};
use tonic::Status;
use uuid::Uuid;

use crate::world::{World, event};

struct Person(NotificationServiceClient<Caller>);

impl Person {
    fn new(world: &World, org: OrgId) -> Self {
        Self::known(world, org, UserId::new())
    }

    fn known(world: &World, org: OrgId, user: UserId) -> Self {
        Person(NotificationServiceClient::new(world.audit.caller_as(
            org,
            user,
            &["audit.notification.*"],
        )))
    }

    /// Every notification that fits, page by page.
    async fn all(&mut self, unread_only: bool, page_size: i32) -> Vec<Notification> {
        let mut asked = List {
            page_size,
            unread_only,
            ..List::default()
        };
        let mut all = Vec::new();
        loop {
            let page = self.0.list_notifications(asked.clone()).await.unwrap().into_inner();
            all.extend(page.notifications);
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                return all;
            }
        }
    }

    async fn mark(&mut self, ids: &[&str]) -> Result<MarkReadResponse, Status> {
        let request = MarkReadRequest {
            notification_ids: ids.iter().map(|&id| id.to_owned()).collect(),
            ..MarkReadRequest::default()
        };
        Ok(self.0.mark_read(request).await?.into_inner())
    }

    async fn unread(&mut self) -> Vec<String> {
        self.all(true, 0).await.into_iter().map(|one| one.id).collect()
    }
}

fn told(org: OrgId, second: i64, payload: Payload) -> Event {
    Event {
        audited: false,
        payload: Some(payload),
        ..event(org, second)
    }
}

fn execution(org: OrgId, second: i64, pipeline: &str, status: &str) -> Event {
    let changed = ExecutionChanged {
        execution_id: Uuid::now_v7().to_string(),
        pipeline_id: Uuid::now_v7().to_string(),
        pipeline_name: pipeline.to_owned(),
        design_id: Uuid::now_v7().to_string(),
        status: status.to_owned(),
        ..ExecutionChanged::default()
    };
    told(org, second, Payload::ExecutionChanged(changed))
}

fn drift(org: OrgId, second: i64, findings: i32, part: i32) -> Event {
    let found = DriftFound {
        check_id: Uuid::now_v7().to_string(),
        state_id: Uuid::now_v7().to_string(),
        state_name: "network/prod".to_owned(),
        findings,
        critical_findings: findings / 100,
        part,
        ..DriftFound::default()
    };
    told(org, second, Payload::DriftFound(found))
}

/// A check that has ended: nobody hears of it for itself.
fn checked(org: OrgId, second: i64) -> Event {
    let checked = DriftChecked {
        check_id: Uuid::now_v7().to_string(),
        state_id: Uuid::now_v7().to_string(),
        state_name: "network/prod".to_owned(),
        drifted_resources: 1,
        ..DriftChecked::default()
    };
    told(org, second, Payload::DriftChecked(checked))
}

#[tokio::test]
async fn people_hear_of_drift_and_of_what_went_wrong_and_of_nothing_else() {
    let world = World::with_pipelines().await;
    let org = OrgId::new();
    let quiet = ["queued", "running", "cancelling", "succeeded", "cancelled"];
    let mut events: Vec<Event> = quiet.iter().map(|status| execution(org, 0, "deploy", status)).collect();
    events.extend([
        execution(org, 1, "de\nploy", "failed"),
        execution(org, 2, "deploy", "outcome_unknown"),
        drift(org, 3, 1, 0),
        drift(org, 4, 214, 0),
        drift(org, 4, 214, 1),
        drift(org, 4, 214, 2),
        drift(org, 5, 0, 0),
        checked(org, 6),
    ]);
    world.tell(&events).await;
    let mut ada = Person::new(&world, org);
    render::check(
        &ada.0.list_notifications(List::default()).await,
        expect![[r#"
        ListNotificationsResponse {
          notifications: [
            Notification {
              id: "<id 1>"
              kind: DriftDetected
              title: "Drift in state network/prod: 214 new findings, 2 critical"
              resource: Resource {
                type: "state"
                id: "<id 2>"
              }
              occurred_at: <time>
            }
            Notification {
              id: "<id 3>"
              kind: DriftDetected
              title: "Drift in state network/prod: 1 new finding"
              resource: Resource {
                type: "state"
                id: "<id 4>"
              }
              occurred_at: <time>
            }
            Notification {
              id: "<id 5>"
              kind: ExecutionOutcomeUnknown
              title: "An execution of pipeline deploy lost contact with its runner; what it did is not known"
              resource: Resource {
                type: "execution"
                id: "<id 6>"
              }
              design_id: "<id 7>"
              occurred_at: <time>
            }
            Notification {
              id: "<id 8>"
              kind: ExecutionFailed
              title: "An execution of pipeline de ploy failed"
              resource: Resource {
                type: "execution"
                id: "<id 9>"
              }
              design_id: "<id 10>"
              occurred_at: <time>
            }
          ]
        }
    "#]],
    );
    let all = ada.all(false, 0).await;
    assert_eq!(
        (&all[3].id, all[3].occurred_at),
        (&events[5].event_id, events[5].occurred_at)
    );
    assert_eq!(all[3].kind(), NotificationKind::ExecutionFailed);
    assert_eq!(Person::new(&world, OrgId::new()).all(false, 0).await, []);
}

#[tokio::test]
async fn an_event_delivered_again_leaves_one_notification() {
    let world = World::with_pipelines().await;
    let org = OrgId::new();
    let events = [execution(org, 0, "deploy", "failed"), drift(org, 1, 2, 0)];
    world.tell(&events).await;
    let mut ada = Person::new(&world, org);
    let before = ada.all(false, 0).await;
    // Once more in the producer's log, and then everything from its start.
    world.tell(&events).await;
    let world = world
        .restarted("delete from audit.cursors; delete from audit.inbox")
        .await;
    world.caught_up().await;
    let mut ada = Person::new(&world, org);
    assert_eq!(ada.all(false, 0).await, before);
}

#[tokio::test]
async fn what_is_malformed_is_a_dead_letter_and_holds_up_nothing() {
    let world = World::with_pipelines().await;
    let org = OrgId::new();
    let mut broken = execution(org, 0, "deploy", "failed");
    if let Some(Payload::ExecutionChanged(changed)) = &mut broken.payload {
        changed.design_id = "nowhere".to_owned();
    }
    let good = execution(org, 1, "deploy", "failed");
    world.tell(&[broken, good.clone()]).await;
    assert_eq!(Person::new(&world, org).unread().await, [good.event_id]);
    let dead = "select count(*) from audit.dead_letters where consumer = 'notifications'";
    assert_eq!(world.admin.query_one(dead, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn each_reads_for_oneself_and_what_is_read_stays_read() {
    let world = World::with_pipelines().await;
    let (org, user) = (OrgId::new(), UserId::new());
    let events: Vec<Event> = (0..7)
        .map(|index| execution(org, index / 3, "deploy", "failed"))
        .collect();
    world.tell(&events).await;
    let mut ada = Person::known(&world, org, user);
    let mut grace = Person::new(&world, org);
    let all: Vec<String> = ada.unread().await;
    assert_eq!(all.len(), 7);

    ada.mark(&[&all[1], &all[4], &all[1]]).await.unwrap();
    ada.mark(&[&all[4]]).await.unwrap();
    let rest: Vec<String> = [0, 2, 3, 5, 6].map(|index| all[index].clone()).into();
    for page_size in [0, 1, 2, 5] {
        let unread: Vec<String> = ada.all(true, page_size).await.into_iter().map(|one| one.id).collect();
        assert_eq!(unread, rest, "{page_size}");
    }
    let shown = ada.all(false, 2).await;
    assert_eq!(
        shown.iter().map(|one| &one.id).collect::<Vec<_>>(),
        all.iter().collect::<Vec<_>>()
    );
    let read: Vec<bool> = shown.iter().map(|one| one.read).collect();
    assert_eq!(read, [false, true, false, false, true, false, false]);
    assert_eq!(grace.unread().await, all);
    assert!(grace.all(false, 0).await.iter().all(|one| !one.read));

    let stamps = "select string_agg(read_at::text, ',' order by notification_id) from audit.notification_reads";
    let before: String = world.admin.query_one(stamps, &[]).await.unwrap().get(0);
    ada.mark(&[&all[1], &all[4]]).await.unwrap();
    assert_eq!(
        world.admin.query_one(stamps, &[]).await.unwrap().get::<_, String>(0),
        before
    );
}

#[tokio::test]
async fn all_are_marked_or_none() {
    let world = World::with_pipelines().await;
    let (org, other) = (OrgId::new(), OrgId::new());
    let mine = execution(org, 0, "deploy", "failed");
    let theirs = execution(other, 0, "deploy", "failed");
    world.tell(&[mine.clone(), theirs.clone()]).await;
    let mut ada = Person::new(&world, org);
    let answer = ada
        .mark(&[&mine.event_id, &theirs.event_id])
        .await
        .map(|_| ())
        .unwrap_err();
    let told = render::answer::<()>(&Err(answer));
    assert!(
        told.starts_with("NotFound RESOURCE_NOT_FOUND: there is no notification"),
        "{told}"
    );
    assert_eq!(ada.unread().await, [mine.event_id.as_str()]);
    assert_eq!(Person::new(&world, other).unread().await, [theirs.event_id.as_str()]);

    render::check(
        &ada.mark(&[]).await.map(tonic::Response::new),
        expect![[r#"
        InvalidArgument INVALID_REQUEST: the request is invalid: notification_ids must be 1 to 1,000
          request_id: <id 1>
          violation of notification_ids: must be 1 to 1,000
    "#]],
    );
    let many: Vec<String> = (0..1_001).map(|_| Uuid::now_v7().to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    render::check(
        &ada.mark(&many).await.map(tonic::Response::new),
        expect![[r#"
        InvalidArgument INVALID_REQUEST: the request is invalid: notification_ids must be 1 to 1,000
          request_id: <id 1>
          violation of notification_ids: must be 1 to 1,000
    "#]],
    );
    render::check(
        &ada.mark(&["a", &mine.event_id, ""]).await.map(tonic::Response::new),
        expect![[r#"
            InvalidArgument INVALID_REQUEST: the request is invalid: notification_ids[0] must be a UUID in lower case with hyphens (and 1 more)
              request_id: <id 1>
              violation of notification_ids[0]: must be a UUID in lower case with hyphens
              violation of notification_ids[2]: is required
        "#]],
    );
}

#[tokio::test]
async fn a_token_opens_for_its_own_reader_and_filter() {
    let world = World::with_pipelines().await;
    let org = OrgId::new();
    world
        .tell(&[
            execution(org, 0, "deploy", "failed"),
            execution(org, 1, "deploy", "failed"),
        ])
        .await;
    let mut ada = Person::new(&world, org);
    let asked = List {
        page_size: 1,
        ..List::default()
    };
    let page_token = ada
        .0
        .list_notifications(asked.clone())
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    let continued = List { page_token, ..asked };
    assert!(ada.0.list_notifications(continued.clone()).await.is_ok());
    let others = List {
        unread_only: true,
        ..continued.clone()
    };
    let mut grace = Person::new(&world, org);
    for refused in [
        ada.0.list_notifications(others).await,
        grace.0.list_notifications(continued).await,
    ] {
        let told = render::answer(&refused);
        assert!(told.contains("PAGE_TOKEN_INVALID"), "{told}");
    }
    let negative = List {
        page_size: -1,
        ..List::default()
    };
    let told = render::answer(&ada.0.list_notifications(negative).await);
    assert!(told.contains("violation of page_size"), "{told}");
}

#[tokio::test]
async fn jobs_stand_in_the_trail_and_the_migrations_know_them() {
    let world = World::with_pipelines().await;
    let (org, job) = (OrgId::new(), Uuid::now_v7().to_string());
    let by = |id: &str| Event {
        actor: Some(Actor {
            kind: ActorKind::Job.into(),
            id: id.to_owned(),
        }),
        ..event(org, 0)
    };
    world.tell(&[by(&job), by("somebody")]).await;
    assert_eq!(world.count("kind = 'call' and actor_kind = 'job'").await, 1);
    assert_eq!(world.count("kind = 'unparsed'").await, 1);
    let logs = world
        .reader(org)
        .all(api::audit::v1::ListAuditLogsRequest {
            actor_id: job.clone(),
            ..Default::default()
        })
        .await;
    assert_eq!(logs[0].actor, by(&job).actor);

    // The trail is not rewritten: while it holds a job's call, the type of before cannot come back.
    let url = world.audit.database.url(&audit::SLICE, Role::Migrate);
    assert!(kit::db::migrate::revert_all(&url, &audit::SLICE).await.is_err());
    assert_eq!(world.count("actor_kind = 'job'").await, 1);
}

#[tokio::test]
async fn the_migrations_go_down_and_up_over_rows() {
    let world = World::with_pipelines().await;
    let org = OrgId::new();
    world
        .tell(&[event(org, 0), execution(org, 1, "deploy", "failed")])
        .await;
    let mut ada = Person::new(&world, org);
    let unread = ada.unread().await;
    ada.mark(&[&unread[0]]).await.unwrap();
    // As the owner, under whose policies the rows lie; connections that know the old types end before.
    let down = include_str!("../../../../migrations/audit/0002_notifications/down.sql");
    let up = include_str!("../../../../migrations/audit/0002_notifications/up.sql");
    let script =
        |script| format!("begin; set local role board3_audit_owner; set local search_path = audit; {script}; commit;");
    let world = world.restarted(&(script(down) + &script(up))).await;
    let mut ada = Person::new(&world, org);
    assert_eq!(world.count("actor_kind = 'user'").await, 1);
    assert_eq!(ada.unread().await, Vec::<String>::new());
    world.tell(&[execution(org, 2, "deploy", "failed")]).await;
    assert_eq!(ada.unread().await.len(), 1);
}
