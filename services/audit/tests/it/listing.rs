//! Finding rows: filters, pages, one row, and requests that make no sense.

use api::{
    audit::v1::ListAuditLogsRequest as List,
    events::v1::{Event, Resource},
};
use expect_test::expect;
use kit::ids::OrgId;
use testkit::render;
use uuid::Uuid;

use crate::world::{World, at, event};

#[tokio::test]
async fn a_row_says_what_its_event_said() {
    let world = World::new().await;
    let org = OrgId::new();
    let told = Event {
        reason: "PERMISSION_MISSING".to_owned(),
        outcome: 3,
        ..event(org, 0)
    };
    world.tell(std::slice::from_ref(&told)).await;
    let mut reader = world.reader(org);
    let answer = reader.get(&told.event_id).await;
    render::check(
        &answer,
        expect![[r#"
            GetAuditLogResponse {
              audit_log: AuditLog {
                id: "<id 1>"
                occurred_at: <time>
                recorded_at: <time>
                actor: Actor {
                  kind: User
                  id: "<id 2>"
                }
                action: "designs.CreateDesign"
                resource: Resource {
                  type: "design"
                  id: "<id 3>"
                }
                outcome: Denied
                reason: "PERMISSION_MISSING"
                request_id: "<id 4>"
                idempotency_key: "<id 5>"
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736"
                caller_address: "127.0.0.1"
              }
            }
        "#]],
    );
    let log = answer.unwrap().into_inner().audit_log.unwrap();
    assert_eq!(
        (log.occurred_at, log.actor, log.resource),
        (told.occurred_at, told.actor, told.resource)
    );
    assert_eq!(
        (log.id, log.request_id, log.idempotency_key),
        (told.event_id, told.request_id, told.idempotency_key)
    );
    let listed = reader.all(List::default()).await;
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn each_filter_finds_its_rows_and_no_others() {
    let world = World::new().await;
    let org = OrgId::new();
    let mut events: Vec<Event> = (0..6).map(|second| event(org, second)).collect();
    events[1].actor = events[0].actor.clone();
    events[2].action = "designs.DeleteDesign".to_owned();
    events[3].resource = Some(Resource {
        r#type: "version".to_owned(),
        ..events[0].resource.clone().unwrap()
    });
    events[4].resource = None;
    // Somebody sent another call's idempotency key as x-request-id.
    events[5].request_id = events[0].idempotency_key.clone();
    world.tell(&events).await;

    let first = &events[0];
    let id = first.resource.clone().unwrap().id;
    let cases: [(List, &[usize]); 13] = [
        (List::default(), &[5, 4, 3, 2, 1, 0]),
        (
            List {
                since: Some(at(2)),
                ..List::default()
            },
            &[5, 4, 3, 2],
        ),
        (
            List {
                until: Some(at(2)),
                ..List::default()
            },
            &[1, 0],
        ),
        (
            List {
                since: Some(at(1)),
                until: Some(at(4)),
                ..List::default()
            },
            &[3, 2, 1],
        ),
        (
            List {
                since: Some(at(6)),
                ..List::default()
            },
            &[],
        ),
        (
            List {
                actor_id: first.actor.clone().unwrap().id,
                ..List::default()
            },
            &[1, 0],
        ),
        (
            List {
                actor_id: Uuid::now_v7().to_string(),
                ..List::default()
            },
            &[],
        ),
        (
            List {
                action: "designs.DeleteDesign".to_owned(),
                ..List::default()
            },
            &[2],
        ),
        (
            List {
                resource_type: "design".to_owned(),
                ..List::default()
            },
            &[5, 2, 1, 0],
        ),
        (
            List {
                resource_id: id.clone(),
                ..List::default()
            },
            &[3, 0],
        ),
        (
            List {
                resource_type: "version".to_owned(),
                resource_id: id,
                ..List::default()
            },
            &[3],
        ),
        (
            List {
                request_id: first.idempotency_key.clone(),
                ..List::default()
            },
            &[5, 0],
        ),
        (
            List {
                request_id: first.request_id.clone(),
                until: Some(at(1)),
                ..List::default()
            },
            &[0],
        ),
    ];
    let mut reader = world.reader(org);
    for (request, expected) in cases {
        let found: Vec<String> = reader
            .all(request.clone())
            .await
            .into_iter()
            .map(|log| log.id)
            .collect();
        let expected: Vec<String> = expected.iter().map(|&index| events[index].event_id.clone()).collect();
        assert_eq!(found, expected, "{request:?}");
    }
}

#[tokio::test]
async fn pages_walk_the_trail_newest_first_without_gap_or_repeat() {
    let world = World::new().await;
    let org = OrgId::new();
    // Three at each moment, so that pages end between rows of one time.
    let events: Vec<Event> = (0..60).map(|index| event(org, index / 3)).collect();
    world.tell(&events).await;
    let mut expected: Vec<(i64, String)> = events
        .iter()
        .map(|event| (event.occurred_at.unwrap().seconds, event.event_id.clone()))
        .collect();
    expected.sort_by(|one, other| other.cmp(one));

    let mut reader = world.reader(org);
    for page_size in [0, 1, 7, 60, 1_000, i32::MAX] {
        let logs = reader
            .all(List {
                page_size,
                ..List::default()
            })
            .await;
        let found: Vec<_> = logs
            .into_iter()
            .map(|log| (log.occurred_at.unwrap().seconds, log.id))
            .collect();
        assert_eq!(found, expected, "{page_size}");
    }
    let first = reader.list(List::default()).await.unwrap().into_inner();
    assert_eq!(first.audit_logs.len(), 50);

    // What comes in between two pages moves none of the rows that follow.
    let begun = reader
        .list(List {
            page_size: 30,
            ..List::default()
        })
        .await
        .unwrap()
        .into_inner();
    world.tell(&[event(org, 1_000)]).await;
    let rest = reader
        .all(List {
            page_size: 30,
            page_token: begun.next_page_token,
            ..List::default()
        })
        .await;
    let found: Vec<_> = rest.into_iter().map(|log| log.id).collect();
    assert_eq!(
        found,
        expected[30..].iter().map(|(_, id)| id.clone()).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_page_token_opens_for_its_own_list_only() {
    let world = World::new().await;
    let (org, other) = (OrgId::new(), OrgId::new());
    world
        .tell(&[event(org, 0), event(org, 1), event(other, 0), event(other, 1)])
        .await;
    let mut reader = world.reader(org);
    let asked = List {
        page_size: 1,
        action: "designs.CreateDesign".to_owned(),
        ..List::default()
    };
    let token = reader.list(asked.clone()).await.unwrap().into_inner().next_page_token;
    let continued = List {
        page_token: token.clone(),
        ..asked.clone()
    };
    // The page's size is no part of the list.
    assert_eq!(
        reader
            .all(List {
                page_size: 5,
                ..continued.clone()
            })
            .await
            .len(),
        1
    );

    let refused = expect![[r#"
        InvalidArgument PAGE_TOKEN_INVALID: the page token is not of this list
          request_id: <id 1>
    "#]];
    refused.assert_eq(&render::answer(&world.reader(other).list(continued.clone()).await));
    refused.assert_eq(&render::answer(
        &reader
            .list(List {
                action: String::new(),
                ..continued.clone()
            })
            .await,
    ));
    refused.assert_eq(&render::answer(
        &reader
            .list(List {
                since: Some(at(0)),
                ..continued
            })
            .await,
    ));
    refused.assert_eq(&render::answer(
        &reader
            .list(List {
                page_token: "AAAA".repeat(12),
                ..asked
            })
            .await,
    ));
}

#[tokio::test]
async fn every_violation_is_told_at_once() {
    let world = World::new().await;
    let mut reader = world.reader(OrgId::new());
    let request = List {
        page_size: -1,
        page_token: "nonsense".to_owned(),
        since: Some(at(9)),
        until: Some(at(9)),
        actor_id: "ada".to_owned(),
        action: "a".repeat(129),
        resource_type: "a".repeat(65),
        resource_id: "a\0".to_owned(),
        request_id: "a".repeat(129),
    };
    render::check(
        &reader.list(request).await,
        expect![[r#"
            InvalidArgument INVALID_REQUEST: the request is invalid: page_size must not be negative (and 6 more)
              request_id: <id 1>
              violation of page_size: must not be negative
              violation of until: must be after since
              violation of actor_id: must be a UUID in lower case with hyphens
              violation of action: must have at most 128 characters
              violation of resource_type: must have at most 64 characters
              violation of resource_id: must have no control characters
              violation of request_id: must have at most 128 characters
        "#]],
    );
    render::check(
        &reader.get("").await,
        expect![[r#"
            InvalidArgument INVALID_REQUEST: the request is invalid: audit_log_id is required
              request_id: <id 1>
              violation of audit_log_id: is required
        "#]],
    );
    let huge = List {
        action: "a".repeat(70_000),
        ..List::default()
    };
    let told = render::answer(&reader.list(huge).await);
    assert!(told.contains("MESSAGE_TOO_LARGE"), "{told}");
}

#[tokio::test]
async fn another_organization_sees_nothing() {
    let world = World::new().await;
    let (org, other) = (OrgId::new(), OrgId::new());
    let told = event(org, 0);
    world.tell(&[told.clone(), event(other, 1)]).await;
    let mut stranger = world.reader(other);
    assert_eq!(stranger.all(List::default()).await.len(), 1);
    let by_resource = List {
        resource_id: told.resource.unwrap().id,
        ..List::default()
    };
    assert_eq!(stranger.all(by_resource).await, []);
    render::check(
        &stranger.get(&told.event_id).await,
        expect![[r#"
            NotFound RESOURCE_NOT_FOUND: there is no audit_log <id 1>
              id: <id 1>
              request_id: <id 2>
              resource: audit_log
        "#]],
    );
    assert!(world.reader(org).get(&told.event_id).await.is_ok());
}
