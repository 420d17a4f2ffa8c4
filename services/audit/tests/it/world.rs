//! An audit service, and a producer whose outbox a test writes into.

use std::time::Duration;

use api::{
    audit::v1::{
        AuditLog, GetAuditLogRequest, GetAuditLogResponse, ListAuditLogsRequest, ListAuditLogsResponse,
        audit_service_client::AuditServiceClient,
    },
    events::v1::{Actor, ActorKind, Event, Outcome, Resource},
};
use audit::SLICE;
use diesel_migrations::EmbeddedMigrations;
use kit::{
    config::Env,
    db::migrate::Slice,
    ids::{OrgId, UserId},
    service::{Build, Parts, Service},
};
use prost::Message;
use prost_types::Timestamp;
use testkit::{Caller, Role, Served};
use tokio_postgres::Client;
use tonic::{Response, Status};
use uuid::Uuid;

/// A slice with kit's tables alone, under a name that the trail listens to.
static PRODUCER: Slice = Slice {
    name: "designs",
    migrations: EmbeddedMigrations::new(&[]),
};

/// Another one, which the notifications listen to too.
static PIPELINES: Slice = Slice {
    name: "pipelines",
    migrations: EmbeddedMigrations::new(&[]),
};

fn nothing(_: &mut Env) -> Option<Build> {
    Some(Box::new(|_| Box::pin(async { Ok(Parts::new()) })))
}

/// 2026-01-01, where the tests' time begins.
pub(crate) const START: i64 = 1_767_225_600;

pub(crate) struct World {
    pub(crate) audit: Served,
    slice: &'static Slice,
    producer: Served,
    outbox: Client,
    /// The superuser's connection to the trail's database.
    pub(crate) admin: Client,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::fed_by(&PRODUCER, "BOARD3_DESIGNS").await
    }

    /// A world in which the producer is pipelines.
    pub(crate) async fn with_pipelines() -> Self {
        Self::fed_by(&PIPELINES, "BOARD3_PIPELINES").await
    }

    async fn fed_by(slice: &'static Slice, variable: &str) -> Self {
        let instance = Uuid::new_v4().simple().to_string();
        // Much of what is told here is broken on purpose, and each of it is a line of the log.
        let log = std::env::var("BOARD3_LOG").unwrap_or_else(|_| "off".to_owned());
        let common = [("BOARD3_INSTANCE", instance.as_str()), ("BOARD3_LOG", log.as_str())];
        let toy = Service {
            slice,
            configure: nothing,
        };
        let producer = testkit::serve_with(toy, &common).await;
        let address = format!("http://{}", producer.running.grpc);
        let [instance, log] = common;
        let audit = testkit::serve_with(audit::SERVICE, &[instance, log, (variable, &address)]).await;
        let outbox = producer.database.client(slice, Role::App).await;
        let admin = audit.database.admin().await;
        World {
            audit,
            slice,
            producer,
            outbox,
            admin,
        }
    }

    /// Writes events into the producer's outbox and waits until the trail has gone past them.
    pub(crate) async fn tell(&self, events: &[Event]) {
        let rows = events
            .iter()
            .map(|event| (event.organization_id.parse().ok(), event.encode_to_vec()));
        self.tell_raw(rows.collect()).await;
    }

    /// As [`World::tell`], with envelopes that need not be events.
    pub(crate) async fn tell_raw(&self, rows: Vec<(Option<OrgId>, Vec<u8>)>) {
        for (org, envelope) in rows {
            let org = org.unwrap_or(OrgId::PLATFORM).0;
            let insert =
                "insert into outbox (event_id, org_id, envelope) values (gen_random_uuid(), $1::text::uuid, $2)";
            self.outbox
                .execute(insert, &[&org.to_string(), &envelope])
                .await
                .unwrap();
        }
        self.caught_up().await;
    }

    /// Waits until the cursors of all who hear the producer stand where its log ends.
    pub(crate) async fn caught_up(&self) {
        let source = self.slice.name;
        let written = format!("select count(*) from {source}.outbox");
        let producer = self.producer.database.admin().await;
        let written: i64 = producer.query_one(&written, &[]).await.unwrap().get(0);
        let cursors = if source == PIPELINES.name { 2 } else { 1 };
        let passed = format!(
            "select count(*) from audit.cursors where source = '{source}' and position >= {written} and position > 0"
        );
        wait(&format!("{written} events"), async || {
            written == 0 || self.admin.query_one(&passed, &[]).await.unwrap().get::<_, i64>(0) == cursors
        })
        .await;
    }

    /// How many rows of the trail fulfil a condition.
    pub(crate) async fn count(&self, condition: &str) -> i64 {
        let count = format!("select count(*) from audit.audit_logs where {condition}");
        self.admin.query_one(&count, &[]).await.unwrap().get(0)
    }

    /// Someone who may read the organization's trail.
    pub(crate) fn reader(&self, org: OrgId) -> Reader {
        Reader(AuditServiceClient::new(
            self.audit.caller(org, &["audit.audit_log.read"]),
        ))
    }

    /// Ends the audit service, and starts another one on the same database.
    pub(crate) async fn restarted(self, meanwhile: &str) -> World {
        let World {
            audit:
                Served {
                    running,
                    database,
                    office,
                    env,
                    mail,
                },
            slice,
            producer,
            outbox,
            admin,
        } = self;
        running.stop().await;
        admin.batch_execute(meanwhile).await.unwrap();
        let running = match kit::service::start(audit::SERVICE, Env::of(env.clone())).await {
            Ok(running) => running,
            Err(problems) => panic!("{problems}"),
        };
        let audit = Served {
            running,
            database,
            office,
            env,
            mail,
        };
        audit.ready().await;
        World {
            audit,
            slice,
            producer,
            outbox,
            admin,
        }
    }

    /// A connection in one of the audit slice's own roles.
    pub(crate) async fn client(&self, role: Role) -> Client {
        self.audit.database.client(&SLICE, role).await
    }
}

pub(crate) struct Reader(AuditServiceClient<Caller>);

impl Reader {
    pub(crate) async fn list(
        &mut self,
        request: ListAuditLogsRequest,
    ) -> Result<Response<ListAuditLogsResponse>, Status> {
        self.0.list_audit_logs(request).await
    }

    pub(crate) async fn get(&mut self, id: &str) -> Result<Response<GetAuditLogResponse>, Status> {
        self.0
            .get_audit_log(GetAuditLogRequest {
                audit_log_id: id.to_owned(),
            })
            .await
    }

    /// Every log that fits, page by page.
    pub(crate) async fn all(&mut self, request: ListAuditLogsRequest) -> Vec<AuditLog> {
        let mut request = request;
        let mut logs = Vec::new();
        loop {
            let page = self.list(request.clone()).await.unwrap().into_inner();
            logs.extend(page.audit_logs);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return logs;
            }
        }
    }
}

/// A call of a user, some seconds after the start.
pub(crate) fn event(org: OrgId, second: i64) -> Event {
    Event {
        event_id: Uuid::now_v7().to_string(),
        organization_id: org.to_string(),
        occurred_at: Some(at(second)),
        actor: Some(Actor {
            kind: ActorKind::User.into(),
            id: UserId::new().to_string(),
        }),
        action: "designs.CreateDesign".to_owned(),
        resource: Some(Resource {
            r#type: "design".to_owned(),
            id: Uuid::now_v7().to_string(),
        }),
        outcome: Outcome::Success.into(),
        request_id: Uuid::now_v7().to_string(),
        idempotency_key: Uuid::now_v7().to_string(),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        audited: true,
        caller_address: "127.0.0.1".to_owned(),
        ..Event::default()
    }
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp {
        seconds: START + second,
        nanos: 0,
    }
}

/// Asks again until it holds, for at most 20 s.
pub(crate) async fn wait(what: &str, holds: impl AsyncFn() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), asked).await.is_ok(),
        "waited in vain for {what}"
    );
}
