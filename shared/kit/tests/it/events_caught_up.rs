//! Waiting until another slice's commits are applied, and what a consumer tells the trail that it did of itself.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use api::events::v1::{ActorKind, DesignChanged, Event, Outcome, PositionedEvent, ReplayRequest, event::Payload};
use async_trait::async_trait;
use diesel::ExpressionMethods;
use kit::{
    config::Env,
    db::{About, Tx},
    error::{Error, Reason, Result},
    events::consumer::Consumer,
    ids::OrgId,
    service::{Build, Parts, Service},
};
use testkit::Role;
use uuid::Uuid;

use crate::events::{SLICE, Toy, effects, event, insert};

/// The longest wait, and what a busy machine adds.
const BOUND: Duration = Duration::from_millis(2_000);
const BUSY: Duration = Duration::from_millis(1_500);

/// Applies the toy's own events and those of designs.
const APPLIES: Service = Service {
    slice: &SLICE,
    configure,
};

fn configure(_: &mut Env) -> Option<Build> {
    Some(Box::new(|_| {
        Box::pin(async { Ok(Parts::new().consume(Notes("notes")).consume(Notes("twin"))) })
    }))
}

struct Notes(&'static str);

struct Thing(String);

impl About for Thing {
    const TYPE: &'static str = "thing";
    fn id(&self) -> String {
        self.0.clone()
    }
}

#[async_trait]
impl Consumer for Notes {
    fn name(&self) -> &'static str {
        self.0
    }

    fn sources(&self) -> &'static [&'static str] {
        &["audit", "designs"]
    }

    async fn apply(&self, tx: &mut Tx, positioned: &PositionedEvent) -> Result<()> {
        use diesel_async::RunQueryDsl;
        let event = positioned.event.as_ref().unwrap();
        let id: Uuid = event.event_id.parse().unwrap();
        if event.reason == "never" {
            return Err(Error::new(Reason::Conflict, "try again"));
        }
        diesel::insert_into(effects::table)
            .values((
                effects::org_id.eq(tx.org().0),
                effects::consumer.eq(self.0),
                effects::event_id.eq(id),
            ))
            .execute(tx)
            .await?;
        if event.reason == "act" && self.0 == "notes" {
            tx.acted("NoteThing", &Thing(event.event_id.clone()));
        }
        Ok(())
    }
}

async fn open(more: &[(&str, &str)]) -> Toy {
    let served = testkit::serve::serve_with(APPLIES, more).await;
    drop(std::panic::take_hook());
    let admin = served.database.admin().await;
    admin.batch_execute("set search_path = audit").await.unwrap();
    Toy { served, admin }
}

/// Whether it was caught up, and how long that took to say.
async fn asked(toy: &Toy, source: &'static str) -> (bool, Duration) {
    let since = Instant::now();
    (toy.kit().caught_up(source).await, since.elapsed())
}

async fn applied(toy: &Toy, id: Uuid) -> bool {
    toy.effects("notes").await.contains(&id) && toy.effects("twin").await.contains(&id)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_has_taken_effect_once_this_says_so() {
    let toy = open(&[]).await;
    assert!(asked(&toy, "audit").await.0, "an empty log is applied");
    for _ in 0..5 {
        // Written past the service, so that its relay is not woken and the event waits for its position.
        let told = toy.tell(&[""]).await;
        assert!(asked(&toy, "audit").await.0);
        assert!(applied(&toy, told[0]).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_go_on_to_commit_is_not_waited_for() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let toy = open(&[]).await;
    let writer = toy.served.database.client(&SLICE, Role::App).await;
    let writing = tokio::spawn(async move {
        while !STOP.load(Ordering::SeqCst) {
            insert(&writer, &event(OrgId::new(), "")).await.unwrap();
        }
    });
    for _ in 0..3 {
        let told = toy.tell(&[""]).await;
        assert!(asked(&toy, "audit").await.0);
        assert!(applied(&toy, told[0]).await);
    }
    STOP.store(true, Ordering::SeqCst);
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_position_or_effect_is_waited_for_within_the_bound() {
    let toy = open(&[]).await;
    let frozen = toy.served.database.admin().await;
    let fence = "begin; select pg_advisory_xact_lock(hashtextextended('board3.relay.audit', 0))";
    frozen.batch_execute(fence).await.unwrap();
    let told = toy.tell(&[""]).await;
    let (caught_up, took) = asked(&toy, "audit").await;
    assert!(
        !caught_up && took >= BOUND && took < BOUND + BUSY,
        "{caught_up} {took:?}"
    );
    frozen.batch_execute("rollback").await.unwrap();
    crate::eventually(async || applied(&toy, told[0]).await).await;
    toy.tell(&["never"]).await;
    let (caught_up, took) = asked(&toy, "audit").await;
    assert!(
        !caught_up && took >= BOUND && took < BOUND + BUSY,
        "{caught_up} {took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_or_frozen_is_not_waited_for_beyond_the_bound() {
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", frozen.local_addr().unwrap());
    for (address, bound) in [
        ("http://127.0.0.1:1", Duration::from_secs(1)),
        (address.as_str(), BOUND),
    ] {
        let toy = open(&[("BOARD3_DESIGNS", address)]).await;
        let (caught_up, took) = asked(&toy, "designs").await;
        assert!(!caught_up && took < bound + BUSY, "{address}: {caught_up} {took:?}");
        assert!(asked(&toy, "audit").await.0, "one source says nothing of another");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_did_of_itself_is_in_the_trail_with_its_cause() {
    let toy = open(&[]).await;
    let org = OrgId::new();
    let cause = Event {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        payload: Some(Payload::DesignChanged(DesignChanged::default())),
        ..event(org, "act")
    };
    toy.served.office.tell_event("designs", cause.clone());
    assert!(asked(&toy, "designs").await.0);
    assert!(applied(&toy, cause.event_id.parse().unwrap()).await);
    toy.until_positioned(1).await;

    let replay = toy.log().replay(ReplayRequest::default()).await.unwrap();
    let page = replay.into_inner().message().await.unwrap().unwrap();
    let told = page.events[0].event.clone().unwrap();
    assert_eq!((told.action.as_str(), told.audited), ("audit.NoteThing", true));
    assert_eq!((told.outcome(), told.payload), (Outcome::Success, None));
    assert_eq!(told.organization_id, org.to_string());
    let (actor, resource) = (told.actor.unwrap(), told.resource.unwrap());
    assert_eq!((actor.kind(), actor.id.as_str()), (ActorKind::Service, "audit"));
    assert_eq!((resource.r#type.as_str(), &resource.id), ("thing", &cause.event_id));
    assert_eq!((told.cause_event_id, told.chain_depth), (cause.event_id, 1));
    assert_eq!(
        (told.request_id, told.traceparent),
        (cause.request_id, cause.traceparent)
    );
}
