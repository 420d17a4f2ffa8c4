//! The program as a process: configuration, signals, and what happens to Terraform when the runner is killed or frozen.

use std::{process::Stdio, time::Duration};

use api::pipelines::v1::{StageKind, StageOutcome};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    stand::{API_KEY, lease_lost},
    world::{CONFIGURATION, PROGRAM, World, until},
};

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32)).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn a_wrong_configuration_is_told_whole_and_ends_with_64() {
    let output = Command::new(PROGRAM)
        .env_clear()
        .env("BOARD3_PIPELINES", "nowhere")
        .env("BOARD3_HTTP_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("BOARD3_PIPELINES must") && told.contains("BOARD3_RUNNER_API_KEY is not set"),
        "{told}"
    );
}

#[tokio::test]
async fn a_killed_runner_takes_terraform_with_it_by_one_interrupt() {
    let world = World::new(CONFIGURATION).await;
    let program = world.stubborn(1, 0);
    let mut runner = world.process(program.to_str().unwrap());
    let lease = world.stand.hand_out(StageKind::Validate);
    world.begun().await;
    runner.kill().await.unwrap();
    until("the interrupt", || world.interrupts() == 1).await;
    until("the end", || !world.stubborn_runs()).await;
    assert!(world.stand.with(|known| known.reports.is_empty()));
    let known = world.outcome(&lease);
    assert_eq!(
        (known["step"].as_str(), known["reported"].as_bool()),
        (Some("terraform init"), Some(false))
    );
}

#[tokio::test]
async fn a_frozen_runner_outlives_its_lease_but_terraform_does_not_and_its_report_is_not_made() {
    let world = World::new(CONFIGURATION).await;
    world.stand.with(|known| known.expires_in = Duration::from_secs(2));
    let program = world.stubborn(1, 0);
    let mut runner = world.process(program.to_str().unwrap());
    world.quick();
    world.stand.with(|known| known.plan = b"a plan".to_vec());
    let lease = world.stand.hand_out(StageKind::Apply);
    world.begun().await;
    signal(&runner, Signal::STOP);
    until("the interrupt", || world.interrupts() == 1).await;
    until("the end", || !world.stubborn_runs()).await;
    world.stand.with(|known| {
        for call in ["renew", "append_log", "complete"] {
            known.refuse.insert(call, lease_lost());
        }
    });
    signal(&runner, Signal::CONT);
    until("the outcome's note", || world.outcome(&lease)["outcome"] != "").await;
    signal(&runner, Signal::TERM);
    assert!(
        timeout(Duration::from_secs(10), runner.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    assert!(world.stand.with(|known| known.reports.is_empty()));
    assert_eq!(world.outcome(&lease)["reported"], false);
    assert_eq!(world.interrupts(), 1);
}

#[tokio::test]
async fn a_runner_ends_with_sigterm_after_its_report_and_its_logs_hold_no_secret() {
    let world = World::new(CONFIGURATION).await;
    let program = world.stubborn(1, 0);
    let runner = world.process(program.to_str().unwrap());
    world.stand.hand_out(StageKind::Apply);
    world.stand.with(|known| known.plan = b"a plan".to_vec());
    world.begun().await;
    let credential = world
        .stand
        .with(|known| known.calls.iter().find(|call| call.0 == "export_terraform").cloned());
    signal(&runner, Signal::TERM);
    signal(&runner, Signal::TERM);
    let output = timeout(Duration::from_secs(20), runner.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success());
    let report = world.stand.report().await;
    // `init` ended well; the apply was not begun.
    assert_eq!(
        (report.outcome(), report.failure_reason.as_str()),
        (StageOutcome::Failed, "RUNNER_FAILED")
    );
    let logs = String::from_utf8(output.stderr).unwrap();
    assert!(logs.lines().all(|line| line.starts_with('{')), "{logs}");
    assert!(
        logs.contains("the stage has ended") && !logs.contains(API_KEY),
        "{logs}"
    );
    let credential = credential.unwrap().1.replace("Bearer ", "");
    assert!(credential.starts_with("b3j_") && !logs.contains(&credential), "{logs}");
    assert_eq!(std::fs::read_dir(world.work()).unwrap().count(), 0);
}
