//! What becomes of a lease: cancelled, lost, run out, or with services that stumble.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use api::pipelines::v1::{StageKind, StageOutcome};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tonic::{Code, Status, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    stand::{lease_lost, refusal},
    world::{CONFIGURATION, World, until},
};

const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_cancelled_stage_is_interrupted_once_and_reported_as_cancelled() {
    let mut world = World::with_stubborn(1, 3).await;
    world.stand.with(|known| known.expires_in = SHORT);
    let lease = world.stand.hand_out(StageKind::Validate);
    world.begun().await;
    world.stand.with(|known| known.cancel = true);
    let report = world.stand.report().await;
    assert_eq!(report.outcome(), StageOutcome::Cancelled);
    assert_eq!(report.failure_reason, "");
    assert_eq!(world.interrupts(), 1);
    assert!(
        world.stand.log().contains("the execution is cancelled"),
        "{}",
        world.stand.log()
    );
    world.stop().await;
    assert!(!world.work().join(lease).exists());
}

#[tokio::test]
async fn a_stage_that_ends_well_though_it_was_interrupted_has_succeeded() {
    let world = World::with_stubborn(1, 0).await;
    world.quick();
    world.stand.with(|known| known.expires_in = SHORT);
    world.stand.hand_out(StageKind::Validate);
    world.begun().await;
    world.stand.with(|known| known.cancel = true);
    assert_eq!(world.stand.report().await.outcome(), StageOutcome::Succeeded);
    assert_eq!(world.interrupts(), 1);
}

#[tokio::test]
async fn an_apply_is_not_begun_after_an_init_that_ended_well_though_it_was_cancelled() {
    let world = World::with_stubborn(1, 0).await;
    world.stand.with(|known| {
        known.expires_in = SHORT;
        known.plan = b"a plan".to_vec();
    });
    world.stand.hand_out(StageKind::Apply);
    world.begun().await;
    world.stand.with(|known| known.cancel = true);
    assert_eq!(world.stand.report().await.outcome(), StageOutcome::Cancelled);
    assert_eq!(world.interrupts(), 1);
}

#[tokio::test]
async fn an_apply_that_nobody_saw_end_is_not_reported_and_its_state_is_kept() {
    for supervisor_too in [false, true] {
        let mut world = World::with_stubborn(1, 1).await;
        world.quick();
        world.stand.with(|known| known.plan = b"a plan".to_vec());
        let lease = world.stand.hand_out(StageKind::Apply);
        world.begun().await;
        let (program, supervisor) = world.stubborn_and_supervisor();
        let killed = if supervisor_too { supervisor } else { program };
        kill_process(Pid::from_raw(killed).unwrap(), Signal::KILL).unwrap();
        until("the outcome's note", || world.outcome(&lease)["outcome"] == "unknown").await;
        until("the end", || !world.stubborn_runs()).await;
        assert_eq!(world.interrupts(), usize::from(supervisor_too));
        world.stop().await;
        assert!(world.stand.with(|known| known.reports.is_empty()));
        let kept = world.work().join(&lease);
        assert!(kept.join("work/errored.tfstate").exists());
        let log = std::fs::read_to_string(kept.join("log")).unwrap();
        assert!(log.contains("tester keeps it as"), "{log}");
    }
}

#[tokio::test]
async fn a_state_that_could_not_be_stored_is_kept_after_the_report_too() {
    let mut world = World::with_stubborn(1, 1).await;
    world.quick();
    world.stand.with(|known| {
        known.expires_in = SHORT;
        known.plan = b"a plan".to_vec();
    });
    let lease = world.stand.hand_out(StageKind::Apply);
    world.begun().await;
    world.stand.with(|known| known.cancel = true);
    assert_eq!(world.stand.report().await.outcome(), StageOutcome::Cancelled);
    world.stop().await;
    assert_eq!(world.outcome(&lease)["reported"], true);
    assert!(world.work().join(&lease).join("work/errored.tfstate").exists());
    assert!(world.stand.log().contains("errored.tfstate"), "{}", world.stand.log());
}

#[tokio::test]
async fn a_runner_is_ready_at_once_and_not_while_pipelines_is_gone() {
    let mut world = World::new(CONFIGURATION).await;
    let health = world.start("no-such-terraform");
    let began = Instant::now();
    ready(health, true).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(get(health, "/health/live").await.starts_with("HTTP/1.1 200"));
    let address = format!("http://{health}");
    let mut grpc = HealthClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
    let question = HealthCheckRequest {
        service: "readiness".to_owned(),
    };
    let status = grpc.check(question).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    world
        .stand
        .with(|known| known.refuse.insert("acquire", Status::unavailable("gone")));
    ready(health, false).await;
    world.stand.with(|known| known.refuse.clear());
    ready(health, true).await;
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: runner\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn ready(address: SocketAddr, ready: bool) {
    let status = if ready { "HTTP/1.1 200" } else { "HTTP/1.1 503" };
    for _ in 0..1000 {
        if get(address, "/health/ready").await.starts_with(status) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("readiness did not become {ready}");
}

#[tokio::test]
async fn a_lost_lease_interrupts_terraform_and_nothing_is_reported() {
    let mut world = World::with_stubborn(1, 1).await;
    let lease = world.apply();
    world.begun().await;
    world.stand.with(|known| {
        known.refuse.insert("renew", lease_lost());
        known.refuse.insert("append_log", lease_lost());
    });
    until("the interrupt", || world.interrupts() == 1).await;
    until("the outcome's note", || world.outcome(&lease)["outcome"] == "unknown").await;
    world.stop().await;
    assert!(world.stand.with(|known| known.reports.is_empty()));
    let known = world.outcome(&lease);
    assert_eq!(known["reported"], false);
    assert_eq!(known["step"], "terraform apply");
    assert!(!world.stubborn_runs());
    let plan = world.work().join(&lease).join("work/plan.tfplan");
    assert!(!plan.exists());
}

#[tokio::test]
async fn a_lease_that_runs_out_interrupts_terraform_and_what_is_known_is_told_if_it_is_still_heard() {
    let world = World::with_stubborn(1, 1).await;
    world.apply();
    world.begun().await;
    world
        .stand
        .with(|known| known.refuse.insert("renew", Status::unavailable("gone")));
    until("the interrupt", || world.interrupts() == 1).await;
    world.stand.with(|known| known.refuse.clear());
    let report = world.stand.report().await;
    assert_eq!(report.outcome(), StageOutcome::Failed);
    assert_eq!(report.failure_reason, "RUNNER_FAILED");
    assert!(
        report.failure_detail.contains("lease ran out"),
        "{}",
        report.failure_detail
    );
    assert_eq!(world.interrupts(), 1);
}

#[tokio::test]
async fn services_that_stumble_lose_no_byte_of_the_log_and_no_report() {
    let mut world = World::with_stubborn(1, 1).await;
    let gone = || Status::unavailable("gone");
    let gap = refusal(Code::OutOfRange, "LOG_GAP", &[("expected_offset", "0".to_owned())]);
    world.stand.with(|known| {
        known.expires_in = SHORT;
        for call in ["start", "renew", "export_terraform"] {
            known.stumble.insert(call, vec![gone(), gone()]);
        }
        known.stumble.insert("append_log", vec![gone(), gap.clone(), gone()]);
        known
            .stumble
            .insert("complete", vec![gone(), gap, Status::internal("broken")]);
    });
    world.stand.hand_out(StageKind::Plan);
    world.begun().await;
    world.stand.until("some log", |known| known.log.len() > 20).await;
    world.stand.with(|known| known.cancel = true);
    let report = world.stand.report().await;
    assert_eq!(report.outcome(), StageOutcome::Cancelled);
    let log = world.stand.log();
    assert_eq!(report.log_bytes, log.len() as i64);
    assert!(log.starts_with("$ terraform init -input=false\nworking in /"), "{log}");
    assert!(log.ends_with("[board3-runner: cancelled]\n"), "{log}");
    world.stop().await;
    let ids = world.stand.with(|known| known.reports.len());
    assert_eq!(ids, 1);
}

#[tokio::test]
async fn a_runner_that_is_stopped_interrupts_terraform_and_leaves_what_changes_nothing_to_another_attempt() {
    for kind in [StageKind::Validate, StageKind::Plan, StageKind::Apply] {
        let mut world = World::with_stubborn(1, 1).await;
        world.stand.with(|known| known.plan = b"a plan".to_vec());
        let lease = world.stand.hand_out(kind);
        world.begun().await;
        world.stop().await;
        assert_eq!(world.interrupts(), 1);
        assert!(!world.work().join(lease).exists());
        let reports = world.stand.with(|known| known.reports.clone());
        if kind == StageKind::Apply {
            assert_eq!(reports[0].outcome(), StageOutcome::Failed);
            assert_eq!(reports[0].failure_reason, "RUNNER_FAILED");
            assert_eq!(reports[0].failure_detail, "the runner is stopped");
        } else {
            assert!(reports.is_empty(), "{reports:?}");
        }
    }
}

#[tokio::test]
async fn an_apply_that_was_killed_after_a_cancellation_is_not_reported() {
    let mut world = World::with_stubborn(99, 1).await;
    let lease = world.apply();
    world.begun().await;
    world.stand.with(|known| known.cancel = true);
    until("the interrupt", || world.interrupts() == 1).await;
    let (program, _) = world.stubborn_and_supervisor();
    kill_process(Pid::from_raw(program).unwrap(), Signal::KILL).unwrap();
    until("the outcome's note", || world.outcome(&lease)["outcome"] == "unknown").await;
    world.stop().await;
    assert!(world.stand.with(|known| known.reports.is_empty()));
    let kept = world.work().join(&lease).join("work");
    assert!(kept.join("errored.tfstate").exists() && !kept.join("plan.tfplan").exists());
}

#[tokio::test]
async fn an_interrupted_apply_whose_supervisor_is_killed_has_no_second_interrupt() {
    let mut world = World::with_stubborn(99, 1).await;
    let lease = world.apply();
    world.begun().await;
    world.stand.with(|known| known.cancel = true);
    until("the interrupt", || world.interrupts() == 1).await;
    let (program, supervisor) = world.stubborn_and_supervisor();
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    let told = "nobody stands by terraform";
    let log = || world.stand.log();
    until("a word about it", || log().contains(told)).await;
    assert!(world.stubborn_runs());
    kill_process(Pid::from_raw(program).unwrap(), Signal::KILL).unwrap();
    until("the outcome's note", || world.outcome(&lease)["outcome"] == "unknown").await;
    assert_eq!(world.interrupts(), 1);
    world.stop().await;
    assert!(world.stand.with(|known| known.reports.is_empty()));
}

#[tokio::test]
async fn a_begin_that_is_refused_or_cancelled_is_reported_as_such() {
    let wrong = refusal(Code::InvalidArgument, "INVALID_REQUEST", &[]);
    for (refused, cancel) in [(wrong, false), (Status::unavailable("gone"), true)] {
        let mut world = World::new(CONFIGURATION).await;
        world.stand.with(|known| {
            known.expires_in = SHORT;
            known.refuse.insert("start", refused);
            known.cancel = cancel;
        });
        let lease = world.stand.hand_out(StageKind::Apply);
        world.start("no-such-terraform");
        let report = world.stand.report().await;
        if cancel {
            assert_eq!(report.outcome(), StageOutcome::Cancelled);
        } else {
            assert_eq!(report.outcome(), StageOutcome::Failed);
            assert_eq!(report.failure_reason, "RUNNER_FAILED");
        }
        world.stop().await;
        assert!(!world.work().join(lease).exists());
    }
}

#[tokio::test]
async fn a_stage_that_is_handed_out_while_the_runner_stops_is_not_begun() {
    let mut world = World::new(CONFIGURATION).await;
    world.start("no-such-terraform");
    let stand = world.stand.clone();
    // The first question does not wait.
    let asked = |calls: &[(&str, String, String)]| calls.iter().filter(|call| call.0 == "acquire").count();
    stand.until("a question", |known| asked(&known.calls) > 1).await;
    tokio::join!(world.stop(), async { stand.hand_out(StageKind::Apply) });
    stand.with(|known| {
        assert!(known.leases.is_empty());
        assert!(known.reports.is_empty() && known.calls.iter().all(|call| call.0 != "start"));
    });
}

#[tokio::test]
async fn without_a_terraform_a_stage_ends_with_tool_missing() {
    let mut world = World::new(CONFIGURATION).await;
    world.start("no-such-terraform");
    world.stand.hand_out(StageKind::Validate);
    let report = world.stand.report().await;
    assert_eq!(report.outcome(), StageOutcome::Failed);
    assert_eq!(report.failure_reason, "TOOL_MISSING");
    assert_eq!(
        world.stand.with(|known| known.registered[0].terraform_version.clone()),
        ""
    );
}

#[tokio::test]
async fn an_export_that_is_refused_ends_the_stage_with_the_reason() {
    let world = World::with_stubborn(1, 1).await;
    let refused = refusal(Code::InvalidArgument, "DESIGN_INVALID", &[]);
    world
        .stand
        .with(|known| known.refuse.insert("export_terraform", refused));
    world.stand.hand_out(StageKind::Plan);
    let report = world.stand.report().await;
    assert_eq!(report.failure_reason, "EXPORT_FAILED");
    assert_eq!(report.failure_detail, "DESIGN_INVALID: refused by the stand-in");
}
