//! Runners: known by name, waiting without holding anything.

use std::time::{Duration, Instant};

use api::pipelines::v1::{AcquireRequest, ListRunnersRequest, ReadStageLogsRequest, RegisterRequest, StageKind};
use kit::ids::{OrgId, UserId};
use tonic::{Code, Request};

use crate::runner_world::{Yard, only, reason, violated, wait};

#[tokio::test]
async fn a_runner_is_found_again_by_its_name() {
    let yard = Yard::new().await;
    let mut runner = yard.runner("build-1.eu_west").await;
    let again = RegisterRequest {
        name: "build-1.eu_west".to_owned(),
        terraform_version: String::new(),
        ..Default::default()
    };
    let again = runner.calls.register(again).await.unwrap().into_inner().runner.unwrap();
    assert_eq!((&again.id, again.terraform_version.as_str()), (&runner.id, ""));
    assert!(again.seen_at.unwrap().seconds >= again.created_at.unwrap().seconds);
    for name in ["", "a b", &"x".repeat(101), "ä"] {
        let bad = RegisterRequest {
            name: name.to_owned(),
            terraform_version: "9".repeat(65),
            ..Default::default()
        };
        assert_eq!(
            violated(runner.calls.register(bad).await),
            ["name", "terraform_version"]
        );
    }
}

#[tokio::test]
async fn runners_are_listed_by_name_page_by_page_and_only_ones_own() {
    let yard = Yard::new().await;
    for name in ["b", "A", "a", "B", "c-3"] {
        yard.runner(name).await;
    }
    let mut runner = yard.runner("C").await;
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRunnersRequest {
            page_size: 4,
            page_token,
        };
        let page = runner.calls.list_runners(request).await.unwrap().into_inner();
        names.extend(page.runners.into_iter().map(|runner| runner.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["A", "B", "C", "a", "b", "c-3"]);
    let elsewhere = yard.served.caller(OrgId::new(), &["pipelines.runner.*"]);
    let mut elsewhere = api::pipelines::v1::runner_service_client::RunnerServiceClient::new(elsewhere);
    let none = elsewhere
        .list_runners(ListRunnersRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(none.runners.is_empty());
    let bad = ListRunnersRequest {
        page_size: -1,
        ..Default::default()
    };
    assert_eq!(violated(runner.calls.list_runners(bad).await), ["page_size"]);
    let foreign = ListRunnersRequest {
        page_token: "x".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(runner.calls.list_runners(foreign).await), "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn a_runner_that_waits_hears_of_a_stage_and_holds_no_connection() {
    let yard = Yard::new().await;
    let pipeline = yard.pipeline("prod", only(StageKind::Validate)).await;
    let mut waiting = Vec::new();
    // More than the pool has connections.
    for number in 0..24 {
        let runner = yard.runner(&format!("r{number}")).await;
        waiting.push(tokio::spawn(async move { runner.acquire(15_000).await }));
    }
    let pool = || yard.served.running.kit.db.statistics();
    wait("all connections to be idle", async || pool().idle == pool().connections).await;
    for _ in 0..24 {
        yard.run(&pipeline).await;
    }
    let mut stages = std::collections::HashSet::new();
    for runner in waiting {
        stages.insert(runner.await.unwrap().expect("each gets one").stage_id);
    }
    assert_eq!(stages.len(), 24);
    assert_eq!(pool().timed_out, 0);
}

#[tokio::test]
async fn a_wait_ends_in_its_time_and_before_the_calls_deadline() {
    let yard = Yard::new().await;
    let runner = yard.runner("r1").await;
    let began = Instant::now();
    assert!(runner.acquire(600).await.is_none());
    assert!(began.elapsed() >= Duration::from_millis(600));
    let asked = |seconds: i64| AcquireRequest {
        runner_id: runner.id.clone(),
        wait: Some(prost_types::Duration { seconds, nanos: 0 }),
    };
    let answer = loop {
        let mut short = Request::new(asked(20));
        short.set_timeout(Duration::from_secs(2));
        let answer = runner.calls.clone().acquire(short).await;
        // On a busy machine the client's own timer may win.
        if !answer.as_ref().is_err_and(|status| status.code() == Code::Cancelled) {
            break answer.unwrap();
        }
    };
    assert!(answer.into_inner().lease.is_none());
    for seconds in [-1, 21, i64::MAX] {
        assert_eq!(violated(runner.calls.clone().acquire(asked(seconds)).await), ["wait"]);
    }
    let unknown = AcquireRequest {
        runner_id: uuid::Uuid::now_v7().to_string(),
        wait: None,
    };
    assert_eq!(
        reason(runner.calls.clone().acquire(unknown).await),
        "RESOURCE_NOT_FOUND"
    );
    let elsewhere = yard.served.caller(OrgId::new(), &["pipelines.runner.*"]);
    let mut elsewhere = api::pipelines::v1::runner_service_client::RunnerServiceClient::new(elsewhere);
    assert_eq!(reason(elsewhere.acquire(asked(0)).await), "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn what_a_runner_asked_before_it_registered_again_takes_no_stage() {
    let yard = Yard::new().await;
    let user = UserId::new();
    let before = yard.runner_of(user, "r1").await;
    let calls = before.clone();
    let began = Instant::now();
    let ghost = tokio::spawn(async move { calls.acquire(15_000).await });
    // It waits once it has been seen, which is noted before it looks.
    let seen = "select count(*) from runners where seen_at > created_at";
    wait("the runner to be seen", async || yard.number(seen).await == 1).await;
    let now = yard.runner_of(user, "r1").await;
    assert!(ghost.await.unwrap().is_none());
    assert!(began.elapsed() < Duration::from_secs(10));
    let run = yard.run(&yard.pipeline("prod", only(StageKind::Validate)).await).await;
    assert_eq!(now.take().await.execution_id, run.id);
}

#[tokio::test]
async fn a_service_that_stops_answers_who_waits_and_who_follows() {
    let yard = Yard::new().await;
    let run = yard.run(&yard.pipeline("prod", only(StageKind::Validate)).await).await;
    let worker = yard.runner("r1").await;
    let lease = worker.take().await;
    worker.start(&lease).await.unwrap();
    let follow = ReadStageLogsRequest {
        stage_id: run.stages[0].id.clone(),
        follow: true,
        ..Default::default()
    };
    let mut log = yard.read(follow).await.unwrap();
    worker.append(&lease, 0, b"hello").await.unwrap();
    assert_eq!(log.message().await.unwrap().unwrap().next_offset, 5);
    let idle = yard.runner("r2").await;
    let waiter = tokio::spawn(async move { idle.acquire(20_000).await });
    let seen = "select count(*) from runners where name = 'r2' and seen_at > created_at";
    wait("the runner to be seen", async || yard.number(seen).await == 1).await;
    let began = Instant::now();
    let stopping = tokio::spawn(yard.served.running.stop());
    assert!(waiter.await.unwrap().is_none());
    let ended = log.message().await.unwrap_err();
    assert_eq!(ended.code(), tonic::Code::Unavailable);
    assert_eq!(reason(Err::<(), _>(ended)), "OVERLOADED");
    // Long before the calls under way would be cut off, after 10 s.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    stopping.await.unwrap();
}
