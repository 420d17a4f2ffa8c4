//! How PostgreSQL finds a page: every filter starts from an index of its own, under row-level security, as the app role.

#![allow(clippy::unwrap_used)]

use diesel::{
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    result::QueryResult,
    sql_types::Text,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use kit::{
    Violations,
    ids::{OrgId, Principal, UserId},
    page::PageSize,
};
use testkit::Role;
use uuid::Uuid;

use crate::{
    SLICE,
    model::{Cursor, Filter, LogId, notification::NotificationFilter},
    store,
};

/// Four organizations with 15,000 rows each, a second apart, with values of a tenant's everyday frequencies.
const ROWS: &str = "
insert into audit.audit_logs
select ('00000000-0000-7000-8000-00000000000' || 1 + n % 4)::uuid, gen_random_uuid(), 'call', now(),
    to_timestamp(1767225600 + n), 'designs', gen_random_uuid(), n, 'user', md5((n % 200)::text)::uuid::text,
    'designs.M' || n % 300, 'type' || n % 150, 'resource' || n % 500, 'success', null, 'request' || n, 'key' || n,
    null, null, null, 0, null, null, '\\x0102'
from generate_series(1, 60000) n;
analyze audit.audit_logs";

struct Explain<Q>(Q);

impl<Q> QueryId for Explain<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q> Query for Explain<Q> {
    type SqlType = Text;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Explain<Q> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        pass.push_sql("explain (costs off) ");
        self.0.walk_ast(pass)
    }
}

#[tokio::test]
async fn every_filter_starts_from_its_index() {
    let database = testkit::database(&[&SLICE]).await;
    database.admin().await.batch_execute(ROWS).await.unwrap();
    let mut app = AsyncPgConnection::establish(&database.url(&SLICE, Role::App))
        .await
        .unwrap();
    let org = OrgId(Uuid::from_u128(0x00000000_0000_7000_8000_000000000001));
    app.batch_execute(&format!("set app.org = '{org}'")).await.unwrap();

    let text = |text: &str| Some(text.to_owned());
    let at = 1_767_255_600_000_000;
    let after = Some(Cursor {
        occurred_at: at,
        id: LogId::new(),
    });
    let everything = Filter::default();
    let time = Filter {
        since: Some(at),
        until: Some(at + 3_600_000_000),
        ..Filter::default()
    };
    let actor = Filter {
        actor_id: Some(Uuid::from_u128(1)),
        ..Filter::default()
    };
    let action = Filter {
        action: text("designs.M7"),
        ..Filter::default()
    };
    let resource_type = Filter {
        resource_type: text("type7"),
        ..Filter::default()
    };
    let resource = Filter {
        resource_type: text("type7"),
        resource_id: text("resource7"),
        ..Filter::default()
    };
    let resource_id = Filter {
        resource_id: text("resource7"),
        ..Filter::default()
    };
    let request = Filter {
        request_id: text("request7"),
        ..Filter::default()
    };
    let cases: [(&str, &Filter, Option<Cursor>, &[&str]); 10] = [
        ("everything", &everything, None, &["occurred_at"]),
        ("a later page", &everything, after, &["occurred_at"]),
        ("time", &time, None, &["occurred_at"]),
        ("time, a later page", &time, after, &["occurred_at"]),
        ("actor", &actor, None, &["actor"]),
        ("action", &action, None, &["action"]),
        ("resource type", &resource_type, None, &["resource"]),
        ("resource", &resource, None, &["resource"]),
        ("resource id", &resource_id, None, &["resource_id"]),
        ("request", &request, None, &["request_id", "idempotency_key"]),
    ];
    let size = PageSize::parse(0, &mut Violations::new()).unwrap();
    for (what, filter, after, indexes) in cases {
        let query = Explain(store::page(org, filter, after, size));
        let plan = query.load::<String>(&mut app).await.unwrap().join("\n");
        assert!(!plan.contains("Seq Scan"), "{what}:\n{plan}");
        for index in indexes {
            assert!(plan.contains(&format!(" audit_logs_{index}_idx")), "{what}:\n{plan}");
        }
        // The range itself is what the index is entered with, not a filter on what it gives.
        if filter.since.is_some() || after.is_some() {
            let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap();
            assert!(condition.contains("occurred_at"), "{what}:\n{plan}");
        }
    }
}

/// Four organizations with 5,000 notifications each, of which a reader has read all but the newest hundred.
const NOTIFICATIONS: &str = "
insert into audit.notifications
select ('00000000-0000-7000-8000-00000000000' || 1 + n % 4)::uuid, gen_random_uuid(), 'drift_detected', 'title',
    'state', 'state' || n % 50, null, to_timestamp(1767225600 + n)
from generate_series(1, 20000) n;
insert into audit.notification_reads
select org_id, 'user:00000000-0000-7000-8000-000000000009', id from audit.notifications
where occurred_at < to_timestamp(1767225600 + 19600);
analyze audit.notifications, audit.notification_reads";

#[tokio::test]
async fn notifications_and_what_was_read_are_found_by_their_indexes() {
    let database = testkit::database(&[&SLICE]).await;
    database.admin().await.batch_execute(NOTIFICATIONS).await.unwrap();
    let mut app = AsyncPgConnection::establish(&database.url(&SLICE, Role::App))
        .await
        .unwrap();
    let org = OrgId(Uuid::from_u128(0x00000000_0000_7000_8000_000000000001));
    app.batch_execute(&format!("set app.org = '{org}'")).await.unwrap();
    let reader = Principal::User(UserId(Uuid::from_u128(0x00000000_0000_7000_8000_000000000009)));
    let after = Some(Cursor {
        occurred_at: 1_767_235_600_000_000,
        id: LogId::new(),
    });
    let size = PageSize::parse(0, &mut Violations::new()).unwrap();
    for (unread_only, after) in [(false, None), (false, after), (true, None), (true, after)] {
        let filter = NotificationFilter {
            reader: reader.into(),
            unread_only,
        };
        let query = Explain(store::notification::page(org, &filter, after, size));
        let plan = query.load::<String>(&mut app).await.unwrap().join("\n");
        assert!(!plan.contains("Seq Scan"), "{plan}");
        for index in ["notifications_occurred_at_idx", "notification_reads_pkey"] {
            assert!(plan.contains(&format!(" {index}")), "{plan}");
        }
        assert_eq!(plan.contains("Anti Join"), unread_only, "{plan}");
    }
}
