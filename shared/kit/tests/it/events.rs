//! A toy slice that writes events and applies its own, over the real server, relay, Redis and log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use api::events::v1::{
    DesignChanged, Event, PositionedEvent, event::Payload, event_log_service_client::EventLogServiceClient,
};
use async_trait::async_trait;
use diesel::ExpressionMethods;
use diesel_migrations::embed_migrations;
use kit::{
    config::Env,
    db::{Tx, migrate::Slice},
    error::{Error, Reason, Result},
    events::{
        self,
        consumer::Consumer,
        follow::{Follower, Start, Step},
    },
    ids::OrgId,
    service::{Build, Kit, Parts, Service},
};
use prost::Message;
use testkit::{Role, serve::Caller, serve::Served};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::eventually;

pub(crate) static SLICE: Slice = Slice {
    name: "audit",
    migrations: embed_migrations!("tests/toy"),
};
pub(crate) const TOY: Service = Service {
    slice: &SLICE,
    configure,
};

fn configure(_: &mut Env) -> Option<Build> {
    Some(Box::new(|_| Box::pin(async { Ok(Parts::new()) })))
}

diesel::table! {
    effects (id) {
        id -> Int8,
        org_id -> Uuid,
        consumer -> Text,
        event_id -> Uuid,
    }
}

/// The toy, served.
pub(crate) struct Toy {
    pub(crate) served: Served,
    pub(crate) admin: Client,
}

impl Toy {
    pub(crate) async fn open() -> Toy {
        Toy::open_with(&[]).await
    }

    pub(crate) async fn open_with(more: &[(&str, &str)]) -> Toy {
        let served = testkit::serve::serve_with(TOY, more).await;
        // A service's panics say where and never what; a test's say what failed.
        drop(std::panic::take_hook());
        let admin = served.database.admin().await;
        admin.batch_execute("set search_path = audit").await.unwrap();
        Toy { served, admin }
    }

    pub(crate) fn kit(&self) -> &Kit {
        &self.served.running.kit
    }

    pub(crate) fn log(&self) -> EventLogServiceClient<Caller> {
        EventLogServiceClient::new(self.served.peer("audit"))
    }

    /// Events of a new organization, each in a transaction of its own.
    pub(crate) async fn tell(&self, reasons: &[&str]) -> Vec<Uuid> {
        let events: Vec<Event> = reasons.iter().map(|reason| event(OrgId::new(), reason)).collect();
        self.write(&events).await
    }

    pub(crate) async fn tell_many(&self, count: usize) -> Vec<Uuid> {
        self.tell(&vec![""; count]).await
    }

    pub(crate) async fn write(&self, events: &[Event]) -> Vec<Uuid> {
        let writer = self.served.database.client(&SLICE, Role::App).await;
        let mut written = Vec::new();
        for event in events {
            insert(&writer, event).await.unwrap();
            written.push(event.event_id.parse().unwrap());
        }
        written
    }

    /// Runs a consumer over the toy's own events until the answer is stopped or dropped.
    pub(crate) fn consume(&self, name: &'static str) -> Consuming {
        let stop = CancellationToken::new();
        let kit = self.kit().clone();
        let attempts = Arc::new(AtomicU32::new(0));
        let consumer = Arc::new(Effects {
            name,
            attempts: attempts.clone(),
        });
        let running = events::apply(kit.worker, kit.redis, kit.peers, consumer, "audit", stop.clone());
        Consuming {
            task: tokio::spawn(running),
            stop,
            attempts,
        }
    }

    pub(crate) fn follow(&self, name: &'static str, start: Start) -> Follower {
        let kit = self.kit();
        Follower::new(kit.redis.clone(), kit.peers.clone(), "audit", start).named(name)
    }

    pub(crate) fn channel(&self) -> String {
        events::channel(&self.kit().redis, "audit")
    }

    /// Ids of the events that took effect, in the order in which they did.
    pub(crate) async fn effects(&self, consumer: &str) -> Vec<Uuid> {
        let rows = self
            .admin
            .query(
                "select event_id::text from effects where consumer = $1 order by id",
                &[&consumer],
            )
            .await
            .unwrap();
        rows.iter().map(|row| uuid(row, 0)).collect()
    }

    /// Epoch and position of a consumer's cursor.
    pub(crate) async fn cursor(&self, consumer: &str) -> Option<(Uuid, i64)> {
        let row = self
            .admin
            .query_opt(
                "select epoch::text, position from cursors where consumer = $1",
                &[&consumer],
            )
            .await
            .unwrap()?;
        Some((uuid(&row, 0), row.get(1)))
    }

    pub(crate) async fn head(&self) -> (Uuid, i64) {
        let row = self
            .admin
            .query_one("select epoch::text, position from relay_head", &[])
            .await
            .unwrap();
        (uuid(&row, 0), row.get(1))
    }

    pub(crate) async fn until_positioned(&self, head: i64) {
        crate::eventually(async || self.head().await.1 >= head).await;
    }

    pub(crate) async fn until_applied(&self, consumer: &str, head: i64) {
        crate::eventually(async || {
            self.cursor(consumer)
                .await
                .is_some_and(|(_, position)| position >= head)
        })
        .await;
    }
}

pub(crate) struct Consuming {
    pub(crate) task: JoinHandle<()>,
    pub(crate) stop: CancellationToken,
    /// How often an event came that fails.
    attempts: Arc<AtomicU32>,
}

impl Drop for Consuming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn event(org: OrgId, reason: &str) -> Event {
    Event {
        event_id: Uuid::now_v7().to_string(),
        organization_id: org.to_string(),
        occurred_at: Some(SystemTime::now().into()),
        action: "toy.Play".to_owned(),
        reason: reason.to_owned(),
        request_id: "r-1".to_owned(),
        ..Event::default()
    }
}

pub(crate) async fn insert(writer: &Client, event: &Event) -> Result<u64, tokio_postgres::Error> {
    let org: Uuid = event.organization_id.parse().unwrap_or_default();
    let insert = "insert into outbox (event_id, org_id, envelope) values ($1::text::uuid, $2::text::uuid, $3)";
    writer
        .execute(insert, &[&event.event_id, &org.to_string(), &event.encode_to_vec()])
        .await
}

pub(crate) fn uuid(row: &Row, column: usize) -> Uuid {
    row.get::<_, &str>(column).parse().unwrap()
}

/// A counter of `consumer`; `path` is empty but for `events`.
pub(crate) fn figure(name: &str, consumer: &str, path: &str) -> u64 {
    let samples = events::stats().into_iter().filter(|sample| {
        sample.name == name
            && sample.labels.contains(&("consumer", consumer))
            && (path.is_empty() || sample.labels.contains(&("path", path)))
    });
    samples.map(|sample| sample.value).sum()
}

/// The next events of a follower, as many as asked for.
pub(crate) async fn take(follower: &mut Follower, count: usize) -> Vec<PositionedEvent> {
    let mut taken = Vec::new();
    let taking = async {
        while taken.len() < count {
            if let Step::Events(events) = follower.next().await {
                taken.extend(events);
            }
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(20), taking).await;
    assert!(came.is_ok(), "{} of {count} events came", taken.len());
    taken
}

/// Writes an effect for each event, and does what its reason says.
struct Effects {
    name: &'static str,
    attempts: Arc<AtomicU32>,
}

#[async_trait]
impl Consumer for Effects {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sources(&self) -> &'static [&'static str] {
        &["audit"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        use diesel_async::RunQueryDsl;
        let event = event.event.as_ref().unwrap();
        let id: Uuid = event.event_id.parse().unwrap();
        diesel::insert_into(effects::table)
            .values((
                effects::org_id.eq(tx.org().0),
                effects::consumer.eq(self.name),
                effects::event_id.eq(id),
            ))
            .execute(tx)
            .await?;
        match event.reason.as_str() {
            "fail" => {
                self.attempts.fetch_add(1, Ordering::SeqCst);
                Err(Error::internal("the toy is broken"))
            }
            "panic" => panic!("the toy is broken"),
            "busy" if self.attempts.fetch_add(1, Ordering::SeqCst) < 7 => {
                Err(Error::new(Reason::Conflict, "try again"))
            }
            "tell" => {
                tx.tell(Payload::DesignChanged(DesignChanged::default()));
                Ok(())
            }
            _ if event.payload.is_some() && !event.audited => {
                tx.tell(Payload::DesignChanged(DesignChanged::default()));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_takes_effect_once_in_its_organization_and_in_order() {
    let toy = Toy::open().await;
    let _consuming = toy.consume("in_order");
    let told = toy.tell_many(250).await;
    toy.until_applied("in_order", 250).await;
    assert_eq!(toy.effects("in_order").await, told);
    let astray = "select count(*) from effects join outbox using (event_id) where effects.org_id <> outbox.org_id";
    let astray: i64 = toy.admin.query_one(astray, &[]).await.unwrap().get(0);
    assert_eq!(astray, 0);
    assert!(
        figure("events", "in_order", "pubsub") > 0,
        "nothing came over the channel"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_always_fails_is_a_dead_letter_and_those_behind_it_are_applied() {
    let toy = Toy::open().await;
    let told = toy.tell(&["", "fail", "", "panic", ""]).await;
    toy.until_positioned(5).await;
    let before = toy.kit().worker.statistics().broken;
    let consuming = toy.consume("buries");
    // Five events and the two audit events of the dead letters.
    toy.until_applied("buries", 7).await;
    assert_eq!(toy.effects("buries").await[..3], [told[0], told[2], told[4]]);
    let rows = toy
        .admin
        .query(
            "select event_id::text, attempts, error from dead_letters order by position",
            &[],
        )
        .await
        .unwrap();
    let letters: Vec<(Uuid, i32)> = rows.iter().map(|row| (uuid(row, 0), row.get(1))).collect();
    assert_eq!(letters, [(told[1], 5), (told[3], 5)]);
    // What caused it is for the log alone.
    assert_eq!(rows[0].get::<_, String>(2), "INTERNAL: internal error");
    assert_eq!(rows[1].get::<_, String>(2), "INTERNAL: the consumer panicked");
    // Each of the five panics closed its connection.
    eventually(async || toy.kit().worker.statistics().broken >= before + 5).await;
    // Once together with others, then five times alone.
    assert_eq!(consuming.attempts.load(Ordering::SeqCst), 6);
    assert_eq!(figure("event_dead_letters", "buries", ""), 2);

    let page = toy
        .log()
        .replay(after(5))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let audit = page.events[0].event.clone().unwrap();
    assert_eq!(
        (audit.action.as_str(), audit.audited, audit.reason.as_str()),
        ("audit.DeadLetter", true, "INTERNAL")
    );
    assert_eq!(audit.resource.unwrap().id, told[1].to_string());
    assert_eq!(
        (audit.cause_event_id, audit.request_id),
        (told[1].to_string(), "r-1".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_about_a_dead_letter_ends_the_matter() {
    let toy = Toy::open().await;
    let dead = Event {
        action: "toy.DeadLetter".to_owned(),
        ..event(OrgId::new(), "fail")
    };
    toy.write(&[dead]).await;
    let _consuming = toy.consume("ends");
    toy.until_applied("ends", 1).await;
    let last = toy.tell(&[""]).await;
    toy.until_applied("ends", 2).await;
    assert_eq!(toy.effects("ends").await, last);
    assert_eq!(toy.head().await.1, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_by_itself_is_waited_for_and_buries_nothing() {
    let toy = Toy::open().await;
    let told = toy.tell(&["", "busy", ""]).await;
    let _consuming = toy.consume("waits");
    toy.until_applied("waits", 3).await;
    assert_eq!(toy.effects("waits").await, told);
    assert_eq!(figure("event_dead_letters", "waits", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_buried_at_once() {
    let toy = Toy::open().await;
    let nobody = Event {
        organization_id: "nobody".to_owned(),
        ..event(OrgId::new(), "")
    };
    toy.write(&[nobody]).await;
    let garbage =
        "insert into outbox (event_id, org_id, envelope) values (gen_random_uuid(), gen_random_uuid(), '\\xff')";
    toy.admin.batch_execute(garbage).await.unwrap();
    let told = toy.tell(&[""]).await;
    let _consuming = toy.consume("reads");
    toy.until_applied("reads", 3).await;
    assert_eq!(toy.effects("reads").await[0], told[0]);
    let buried = toy
        .admin
        .query_one("select count(*), max(attempts) from dead_letters", &[])
        .await
        .unwrap();
    assert_eq!((buried.get(0), buried.get(1)), (2_i64, 1_i32));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_events_ends_and_says_where_it_came_from() {
    let toy = Toy::open().await;
    let told = toy.tell(&["tell"]).await;
    let _consuming = toy.consume("chains");
    // The event, four that follow, the fifth that is refused, and the audit event of that.
    toy.until_applied("chains", 7).await;
    let page = toy
        .log()
        .replay(after(0))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let chain: Vec<Event> = page.events.into_iter().map(|event| event.event.unwrap()).collect();
    let depths: Vec<u32> = chain.iter().map(|event| event.chain_depth).collect();
    assert_eq!(depths, [0, 1, 2, 3, 4, 5, 4]);
    assert_eq!(chain[0].event_id, told[0].to_string());
    assert!(chain.windows(2).all(|pair| pair[1].cause_event_id == pair[0].event_id));
    assert!(
        chain
            .iter()
            .all(|event| event.request_id == "r-1" && event.organization_id == chain[0].organization_id)
    );
    assert_eq!(toy.effects("chains").await.len(), 6);
    let error: String = toy
        .admin
        .query_one("select error from dead_letters", &[])
        .await
        .unwrap()
        .get(0);
    assert!(error.contains("longer than 4"), "{error}");
}

pub(crate) fn after(position: i64) -> api::events::v1::ReplayRequest {
    api::events::v1::ReplayRequest {
        after: position,
        ..Default::default()
    }
}
