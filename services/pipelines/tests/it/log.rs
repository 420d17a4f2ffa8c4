//! Logs: what is answered is stored, nothing is missing, and whoever follows comes to an end.

use api::pipelines::v1::{
    CompleteRequest, Lease, ReadStageLogsRequest, ReadStageLogsResponse, StageKind, StageOutcome, StageStatus,
    pipeline_service_client::PipelineServiceClient,
};
use kit::ids::{Principal, UserId};
use testkit::serve::Bearer;
use tonic::{Status, Streaming};

use crate::runner_world::{Runner, Yard, done, metadata, only, reason, report, violated, wait};

const CANARY: &[u8] = b"canary-of-the-log-5f0c";

/// A stage that a runner works on.
async fn running(yard: &Yard) -> (Runner, Lease) {
    yard.run(&yard.pipeline("prod", only(StageKind::Validate)).await).await;
    let runner = yard.runner("r1").await;
    let lease = runner.take().await;
    runner.start(&lease).await.unwrap();
    (runner, lease)
}

fn from(lease: &Lease, offset: i64, follow: bool) -> ReadStageLogsRequest {
    ReadStageLogsRequest {
        stage_id: lease.stage_id.clone(),
        attempt: 0,
        offset,
        follow,
    }
}

/// Everything that a stream says until it ends.
async fn all(mut stream: Streaming<ReadStageLogsResponse>) -> Result<Vec<ReadStageLogsResponse>, Status> {
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await? {
        parts.push(part);
    }
    Ok(parts)
}

fn text(parts: &[ReadStageLogsResponse]) -> Vec<u8> {
    let mut text = Vec::new();
    for (part, next) in parts.iter().zip(parts.iter().skip(1)) {
        assert_eq!(part.next_offset, next.offset);
        assert!(!part.complete);
    }
    for part in parts {
        assert_eq!(
            part.next_offset - part.offset,
            i64::try_from(part.content.len()).unwrap()
        );
        assert!(part.content.len() <= 256 << 10);
        text.extend_from_slice(&part.content);
    }
    text
}

#[tokio::test]
async fn what_is_known_may_come_again_and_a_gap_is_refused() {
    let yard = Yard::new().await;
    let (runner, lease) = running(&yard).await;
    assert_eq!(runner.append(&lease, 0, b"hello ").await.unwrap(), 6);
    assert_eq!(runner.append(&lease, 0, b"hello ").await.unwrap(), 6);
    assert_eq!(runner.append(&lease, 0, b"hel").await.unwrap(), 6);
    assert_eq!(
        runner.append(&lease, 2, b"llo world").await.unwrap(),
        11,
        "its end is new"
    );
    let gap = runner.append(&lease, 12, b"!").await.unwrap_err();
    assert_eq!(metadata(&gap, "expected_offset"), "11");
    assert_eq!(reason(Err::<(), _>(gap)), "LOG_GAP");
    assert_eq!(violated(runner.append(&lease, -1, b"").await), ["offset", "content"]);
    let large = vec![b'x'; (1 << 20) + 1];
    assert_eq!(violated(runner.append(&lease, 11, &large).await), ["content"]);
    assert_eq!(yard.number("select count(*) from stage_logs").await, 2);
    let short = CompleteRequest {
        log_bytes: 6,
        ..done(&lease)
    };
    let missing = runner.complete(short).await.unwrap_err();
    assert_eq!(metadata(&missing, "expected_offset"), "11");
    let whole = CompleteRequest {
        log_bytes: 11,
        ..done(&lease)
    };
    runner.complete(whole).await.unwrap();
    assert_eq!(reason(runner.append(&lease, 0, b"hello ").await), "LOG_SEALED");
    assert_eq!(reason(runner.append(&lease, 11, b"!").await), "LOG_SEALED");
    let parts = all(yard.read(from(&lease, 0, false)).await.unwrap()).await.unwrap();
    assert_eq!(text(&parts), b"hello world");
    assert!(parts.last().unwrap().complete);
}

#[tokio::test]
async fn a_log_ends_at_its_limit() {
    let yard = Yard::new().await;
    let (runner, lease) = running(&yard).await;
    yard.admin
        .batch_execute("update stage_attempts set log_bytes = 67108864 - 4")
        .await
        .unwrap();
    assert_eq!(violated(runner.append(&lease, 67108860, b"12345").await), ["content"]);
    assert_eq!(runner.append(&lease, 67108860, b"1234").await.unwrap(), 67108864);
    assert_eq!(violated(runner.append(&lease, 67108864, b"5").await), ["content"]);
}

#[tokio::test]
async fn a_log_is_read_in_parts_from_every_offset() {
    let yard = Yard::new().await;
    let (runner, lease) = running(&yard).await;
    let whole: Vec<u8> = (0..700_000_u32)
        .map(|at| b'a' + u8::try_from(at % 23).unwrap())
        .collect();
    let mut at = 0;
    for piece in [300_000, 1, 399_999] {
        let stored = runner.append(&lease, i64::try_from(at).unwrap(), &whole[at..at + piece]);
        at = usize::try_from(stored.await.unwrap()).unwrap();
    }
    for offset in [0, 1, 262_144, 299_999, 300_000, 300_001, 699_999] {
        let parts = yard
            .read(from(&lease, i64::try_from(offset).unwrap(), false))
            .await
            .unwrap();
        let parts = all(parts).await.unwrap();
        assert_eq!(text(&parts), &whole[offset..]);
        assert!(!parts.last().unwrap().complete, "more may come");
    }
    let end = all(yard.read(from(&lease, 700_000, false)).await.unwrap())
        .await
        .unwrap();
    assert_eq!((end.len(), end[0].next_offset, end[0].complete), (1, 700_000, false));
    for follow in [false, true] {
        let status = yard.read(from(&lease, 700_001, follow)).await.unwrap_err();
        assert_eq!(metadata(&status, "expected_offset"), "700000");
        assert_eq!(reason(Err::<(), _>(status)), "LOG_GAP");
    }
}

#[tokio::test]
async fn whoever_follows_sees_every_byte_and_the_end() {
    let yard = Yard::new().await;
    let run = yard.run(&yard.pipeline("prod", only(StageKind::Validate)).await).await;
    let early = ReadStageLogsRequest {
        stage_id: run.stages[0].id.clone(),
        follow: true,
        ..Default::default()
    };
    // Before there is an attempt; and once more from the middle while it is written.
    let first = tokio::spawn(all(yard.read(early.clone()).await.unwrap()));
    let runner = yard.runner("r1").await;
    let lease = runner.take().await;
    runner.start(&lease).await.unwrap();
    let mut end = runner.append(&lease, 0, b"0123456789").await.unwrap();
    let second = tokio::spawn(all(yard.read(from(&lease, 5, true)).await.unwrap()));
    let mut whole = b"0123456789".to_vec();
    for line in ["one\n", "two\n", "three\n"] {
        end = runner.append(&lease, end, line.as_bytes()).await.unwrap();
        whole.extend_from_slice(line.as_bytes());
    }
    let report = CompleteRequest {
        log_bytes: end,
        failure_reason: "RUNNER_FAILED".to_owned(),
        ..report(&lease, StageOutcome::Failed)
    };
    runner.complete(report).await.unwrap();
    for (reader, seen) in [(first, &whole[..]), (second, &whole[5..])] {
        let parts = reader.await.unwrap().unwrap();
        assert_eq!(text(&parts), seen);
        let last = parts.last().unwrap();
        assert!(last.complete && last.attempt == 1);
    }
}

#[tokio::test]
async fn the_log_of_a_lost_attempt_comes_to_its_end_and_stays_readable() {
    let yard = Yard::hasty().await;
    let (runner, lease) = running(&yard).await;
    runner.append(&lease, 0, b"as far as it came").await.unwrap();
    let parts = all(yard.read(from(&lease, 0, true)).await.unwrap()).await.unwrap();
    assert_eq!(text(&parts), b"as far as it came");
    assert!(parts.last().unwrap().complete);
    let second = runner.take().await;
    runner.start(&second).await.unwrap();
    runner.append(&second, 0, b"again").await.unwrap();
    runner
        .complete(CompleteRequest {
            log_bytes: 5,
            ..done(&second)
        })
        .await
        .unwrap();
    for (attempt, log) in [(0, &b"again"[..]), (1, b"as far as it came"), (2, b"again")] {
        let request = ReadStageLogsRequest {
            attempt,
            ..from(&lease, 0, false)
        };
        assert_eq!(text(&all(yard.read(request).await.unwrap()).await.unwrap()), log);
    }
    let third = ReadStageLogsRequest {
        attempt: 3,
        ..from(&lease, 0, false)
    };
    assert_eq!(reason(yard.read(third).await), "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn a_stage_that_is_never_tried_has_an_empty_log_that_ends() {
    let yard = Yard::new().await;
    let run = yard.run_on("prod").await;
    let of = |follow| ReadStageLogsRequest {
        stage_id: run.stages[1].id.clone(),
        follow,
        ..Default::default()
    };
    let parts = all(yard.read(of(false)).await.unwrap()).await.unwrap();
    assert_eq!((parts.len(), parts[0].complete), (1, false));
    let follower = tokio::spawn(all(yard.read(of(true)).await.unwrap()));
    yard.cancel(&run.id).await.unwrap();
    let parts = follower.await.unwrap().unwrap();
    assert_eq!((parts.len(), parts[0].attempt, parts[0].complete), (1, 0, true));
    assert_eq!(yard.stage(&run.id, "plan").await.status(), StageStatus::Cancelled);
    let malformed = ReadStageLogsRequest {
        stage_id: "x".to_owned(),
        attempt: -1,
        offset: -1,
        follow: false,
    };
    assert_eq!(violated(yard.read(malformed).await), ["stage_id", "attempt", "offset"]);
    let unknown = ReadStageLogsRequest {
        stage_id: uuid::Uuid::now_v7().to_string(),
        ..Default::default()
    };
    assert_eq!(reason(yard.read(unknown).await), "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn a_log_lies_sealed_and_its_pieces_cannot_be_swapped() {
    let yard = Yard::new().await;
    let (runner, lease) = running(&yard).await;
    let mut end = 0;
    for _ in 0..2 {
        end = runner.append(&lease, end, CANARY).await.unwrap();
    }
    let clear = yard.admin.query_one(
        "select count(*) from stage_logs where position($1::bytea in content) > 0",
        &[&CANARY],
    );
    assert_eq!(clear.await.unwrap().get::<_, i64>(0), 0);
    let swap = "update stage_logs a set content = b.content from stage_logs b where a.start_offset <> b.start_offset";
    yard.admin.batch_execute(swap).await.unwrap();
    assert_eq!(reason(yard.read(from(&lease, 0, false)).await), "CONTENT_CORRUPT");
    yard.admin.batch_execute(swap).await.unwrap();
    let parts = all(yard.read(from(&lease, 0, false)).await.unwrap()).await.unwrap();
    assert_eq!(text(&parts), [CANARY, CANARY].concat());
    // A piece that is gone is no shorter log.
    yard.admin
        .batch_execute("delete from stage_logs where start_offset > 0")
        .await
        .unwrap();
    let mut stream = yard.read(from(&lease, 0, false)).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().content, CANARY);
    assert_eq!(reason(stream.message().await), "CONTENT_CORRUPT");
}

#[tokio::test]
async fn followers_hold_no_connection_while_nothing_is_written() {
    let yard = Yard::new().await;
    let (_runner, lease) = running(&yard).await;
    let mut streams = Vec::new();
    // More than the pool has connections.
    for _ in 0..40 {
        streams.push(yard.read(from(&lease, 0, true)).await.unwrap());
    }
    yard.stage(&lease.execution_id, "only").await;
    let pool = || yard.served.running.kit.db.statistics();
    wait("all connections to be idle", async || pool().idle == pool().connections).await;
    assert_eq!(pool().timed_out, 0);
    drop(streams);
}

#[tokio::test]
async fn under_another_key_a_log_is_out_of_reach_and_not_lost() {
    let yard = Yard::new().await;
    let (runner, lease) = running(&yard).await;
    runner.append(&lease, 0, CANARY).await.unwrap();
    let other_key = yard
        .served
        .env
        .iter()
        .cloned()
        .map(|(name, value)| match name.as_str() {
            "ENCRYPTION_KEY" => (name, "02".repeat(32)),
            _ => (name, value),
        });
    let replica = kit::service::start(pipelines::SERVICE, kit::config::Env::of(other_key)).await;
    let replica = replica.unwrap_or_else(|problems| panic!("{problems}"));
    let person = Principal::User(UserId::new());
    yard.served.office.grant(yard.org, person, &["pipelines.log.read"]);
    let token = yard.served.office.token(yard.org, person, uuid::Uuid::now_v7(), 1);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", replica.grpc)).unwrap();
    let mut there = PipelineServiceClient::with_interceptor(channel.connect_lazy(), Bearer::new(&token));
    // A service that has just started first learns which sessions are over.
    wait("the replica to answer", async || {
        let answer = there.clone().read_stage_logs(from(&lease, 0, false)).await;
        reason(answer) != "REVOCATION_UNKNOWN"
    })
    .await;
    let answer = there.read_stage_logs(from(&lease, 0, false)).await;
    assert_eq!(reason(answer), "KEY_MISSING");
    replica.stop().await;
    let parts = all(yard.read(from(&lease, 0, false)).await.unwrap()).await.unwrap();
    assert_eq!(text(&parts), CANARY);
}
