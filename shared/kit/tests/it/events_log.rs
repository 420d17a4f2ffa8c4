//! The relay's positions and the log that peers read.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use api::events::v1::{Event, HeadRequest, PositionedEvent, ReplayRequest};
use kit::{
    events::{follow::Start, relay::Relay},
    ids::OrgId,
};
use testkit::Role;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::events::{SLICE, Toy, after, event, insert, take};

const WRITERS: usize = 12;
const EACH: usize = 100;

/// Writes events in transactions of random length, a tenth of which roll back; answers what was acknowledged.
async fn write(toy: &Toy, writer: usize) -> Vec<String> {
    let client = toy.served.database.client(&SLICE, Role::App).await;
    let mut acknowledged = Vec::new();
    for round in 0..EACH {
        let random = || u64::from(kit::crypto::random::<1>()[0]);
        client.batch_execute("begin").await.unwrap();
        let aggregate = i32::try_from((writer + round) % 20 + 1).unwrap();
        let bump = "update aggregates set version = version + 1 where id = $1 returning version";
        let version: i64 = client.query_one(bump, &[&aggregate]).await.unwrap().get(0);
        let told = event(OrgId::new(), &format!("{aggregate} {version}"));
        insert(&client, &told).await.unwrap();
        // How long a transaction stays open after its id was drawn is what the test is about.
        tokio::time::sleep(Duration::from_micros(random() * 30)).await;
        if random() < 25 {
            client.batch_execute("rollback").await.unwrap();
        } else {
            client.batch_execute("commit").await.unwrap();
            acknowledged.push(told.event_id);
        }
    }
    acknowledged
}

/// Reads by ascending id, as one would without positions.
async fn read_naively(toy: &Toy, done: &AtomicBool) -> usize {
    let client = toy.served.database.client(&SLICE, Role::Worker).await;
    let (mut last, mut seen) = (0_i64, 0);
    loop {
        let over = done.load(Ordering::SeqCst);
        let rows = client
            .query("select id from outbox where id > $1 order by id", &[&last])
            .await
            .unwrap();
        seen += rows.len();
        last = rows.last().map_or(last, |row| row.get(0));
        if over && rows.is_empty() {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_gapless_and_in_order_whatever_order_transactions_commit_in() {
    let toy = Arc::new(Toy::open().await);
    // Two replicas' relays compete with the service's own.
    let stop = CancellationToken::new();
    for _ in 0..2 {
        let relay = Relay::new(toy.kit().worker.clone(), toy.kit().redis.clone());
        tokio::spawn(relay.run(stop.clone()));
    }
    let done = Arc::new(AtomicBool::new(false));
    let naive = tokio::spawn({
        let (toy, done) = (toy.clone(), done.clone());
        async move { read_naively(&toy, &done).await }
    });
    // Relays die with their connections in the middle of what they do.
    let killer = tokio::spawn({
        let (toy, done) = (toy.clone(), done.clone());
        async move {
            let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() \
                        and usename = 'board3_audit_worker' and query not like 'select id from outbox where id >%'";
            let mut killed = 0;
            while !done.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(40)).await;
                killed += toy.admin.query_one(kill, &[]).await.unwrap().get::<_, i64>(0);
            }
            killed
        }
    });
    let mut follower = toy.follow(
        "gapless",
        Start::After {
            epoch: None,
            position: 0,
        },
    );
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let toy = toy.clone();
            tokio::spawn(async move { write(&toy, writer).await })
        })
        .collect();
    let mut acknowledged = HashSet::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    done.store(true, Ordering::SeqCst);
    assert!(killer.await.unwrap() > 0);

    let followed = take(&mut follower, acknowledged.len()).await;
    let positions: Vec<i64> = followed.iter().map(|event| event.position).collect();
    assert_eq!(
        positions,
        (1..=i64::try_from(acknowledged.len()).unwrap()).collect::<Vec<_>>()
    );
    let mut versions: HashMap<String, i64> = HashMap::new();
    let mut seen = HashSet::new();
    for PositionedEvent { event, .. } in followed {
        let Event { event_id, reason, .. } = event.unwrap();
        let (aggregate, version) = reason.split_once(' ').unwrap();
        let version: i64 = version.parse().unwrap();
        let before = versions.insert(aggregate.to_owned(), version);
        assert!(
            before < Some(version),
            "aggregate {aggregate} went from {before:?} to {version}"
        );
        assert!(seen.insert(event_id));
    }
    assert_eq!(seen, acknowledged);
    toy.until_positioned(i64::try_from(seen.len()).unwrap()).await;
    let naive = naive.await.unwrap();
    assert!(
        naive < seen.len(),
        "the naive cursor lost nothing, so this test proves nothing"
    );
    println!(
        "{} events, {} of them lost by id > last",
        seen.len(),
        seen.len() - naive
    );
    stop.cancel();
}

/// All pages of a replay.
async fn replay(toy: &Toy, request: ReplayRequest) -> Result<Vec<(usize, i64)>, Status> {
    let mut stream = toy.log().replay(request).await?.into_inner();
    let mut pages = Vec::new();
    let mut last = None;
    while let Some(page) = stream.message().await? {
        for event in &page.events {
            assert!(last.is_none_or(|last| event.position == last + 1));
            last = Some(event.position);
        }
        pages.push((page.events.len(), page.head));
    }
    Ok(pages)
}

fn refusal(status: &Status) -> (Code, String, Vec<String>) {
    let details = status.get_error_details();
    let fields = details
        .bad_request()
        .map(|bad| bad.field_violations.iter().map(|one| one.field.clone()).collect());
    (
        status.code(),
        details.error_info().unwrap().reason.clone(),
        fields.unwrap_or_default(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_pages_by_count_and_by_size_and_always_names_its_head() {
    let toy = Toy::open().await;
    assert_eq!(replay(&toy, after(0)).await.unwrap(), [(0, 0)]);
    toy.tell_many(1_200).await;
    toy.until_positioned(1_200).await;
    assert_eq!(
        replay(&toy, after(0)).await.unwrap(),
        [(500, 1200), (500, 1200), (200, 1200)]
    );
    assert_eq!(
        replay(
            &toy,
            ReplayRequest {
                limit: 700,
                ..after(100)
            }
        )
        .await
        .unwrap(),
        [(500, 1200), (200, 1200)]
    );
    assert_eq!(replay(&toy, after(1_199)).await.unwrap(), [(1, 1200)]);
    assert_eq!(replay(&toy, after(1_200)).await.unwrap(), [(0, 1200)]);
    assert_eq!(replay(&toy, after(5_000)).await.unwrap(), [(0, 1200)]);

    let large: Vec<Event> = (0..100).map(|_| event(OrgId::new(), &"x".repeat(60_000))).collect();
    toy.write(&large).await;
    toy.until_positioned(1_300).await;
    let pages = replay(&toy, after(1_200)).await.unwrap();
    assert!(pages.iter().all(|(count, _)| (10..=20).contains(count)), "{pages:?}");
    assert_eq!(pages.iter().map(|(count, _)| count).sum::<usize>(), 100);

    let (epoch, _) = toy.head().await;
    let head = toy.log().head(HeadRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (head.source.as_str(), head.epoch, head.head),
        ("audit", epoch.to_string(), 1_300)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_refuses_what_makes_no_sense_and_what_it_can_no_longer_answer() {
    let toy = Toy::open().await;
    let nonsense = ReplayRequest {
        epoch: "yesterday".to_owned(),
        after: -1,
        limit: -5,
        since: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        }),
    };
    let (code, reason, fields) = refusal(&replay(&toy, nonsense).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    assert_eq!(fields, ["epoch", "after", "limit", "since"]);

    let other = ReplayRequest {
        epoch: Uuid::new_v4().to_string(),
        ..after(0)
    };
    let status = replay(&toy, other).await.unwrap_err();
    assert_eq!(refusal(&status).1, "EPOCH_CHANGED");
    let told = status.get_error_details().error_info().unwrap().metadata["epoch"].clone();
    assert_eq!(told, toy.head().await.0.to_string());

    toy.tell_many(10).await;
    toy.until_positioned(10).await;
    toy.admin
        .batch_execute("delete from outbox where position <= 4")
        .await
        .unwrap();
    let (code, reason, _) = refusal(&replay(&toy, after(3)).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "EVENTS_PRUNED"));
    assert_eq!(replay(&toy, after(4)).await.unwrap(), [(6, 10)]);
    let hour_ago = Some((SystemTime::now() - Duration::from_secs(3600)).into());
    let since = ReplayRequest {
        since: hour_ago,
        ..after(0)
    };
    assert_eq!(
        refusal(&replay(&toy, since.clone()).await.unwrap_err()).1,
        "EVENTS_PRUNED"
    );
    assert_eq!(
        replay(
            &toy,
            ReplayRequest {
                after: 7,
                ..since.clone()
            }
        )
        .await
        .unwrap(),
        [(3, 10)]
    );
    toy.admin
        .batch_execute("update outbox set created_at = now() - interval '2 hours' where position < 8")
        .await
        .unwrap();
    assert_eq!(replay(&toy, since).await.unwrap(), [(3, 10)]);
    toy.admin.batch_execute("delete from outbox").await.unwrap();
    assert_eq!(refusal(&replay(&toy, after(9)).await.unwrap_err()).1, "EVENTS_PRUNED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_answers_services_only() {
    let toy = Toy::open().await;
    let mut nobody = api::events::v1::event_log_service_client::EventLogServiceClient::new(toy.served.channel());
    assert_eq!(
        nobody.head(HeadRequest {}).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let user = toy.served.caller(OrgId::new(), &["*.*.*"]);
    let mut user = api::events::v1::event_log_service_client::EventLogServiceClient::new(user);
    let status = user.replay(after(0)).await.unwrap_err();
    assert_eq!(refusal(&status).1, "CALLER_NOT_ALLOWED");
}
