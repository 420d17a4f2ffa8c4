//! The fence is the database's clock, looked at when everything is held.

use api::pipelines::v1::{Lease, RenewResponse, StageStatus};
use kit::failpoint;
use tonic::Status;

use crate::runner_world::{Runner, Yard, reason, wait};

/// An apply that has begun.
async fn applying(yard: &Yard) -> (Runner, Lease) {
    yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let apply = runner.up_to_apply().await;
    runner.start(&apply).await.unwrap();
    (runner, apply)
}

/// Renews while somebody holds the execution, and lets the fence pass meanwhile.
/// Whoever would take the lease away waits too.
async fn renew_past_the_fence(yard: &Yard, runner: &Runner, lease: &Lease) -> Result<RenewResponse, Status> {
    let hold = format!(
        "begin; select from pipeline_executions where id = '{}' for update",
        lease.execution_id
    );
    yard.admin.batch_execute(&hold).await.unwrap();
    let expire = format!(
        "update stage_attempts set expires_at = clock_timestamp() - interval '2 s', fence_at = clock_timestamp()
         where id = '{}'",
        lease.id
    );
    yard.admin.batch_execute(&expire).await.unwrap();
    let (late, lease) = (runner.clone(), lease.clone());
    let waiting = tokio::spawn(async move { late.renew(&lease).await });
    wait("the renewal to wait for the execution", async || {
        let waits = "select count(*) from pg_stat_activity
            where wait_event_type = 'Lock' and datname = current_database()";
        yard.number(waits).await >= 1
    })
    .await;
    yard.admin.batch_execute("commit").await.unwrap();
    waiting.await.unwrap()
}

#[tokio::test]
async fn a_write_after_the_fence_is_refused_though_nobody_has_taken_the_lease_away() {
    let yard = Yard::new().await;
    let (runner, apply) = applying(&yard).await;
    let renewed = renew_past_the_fence(&yard, &runner, &apply).await;
    assert_eq!(reason(renewed), "LEASE_LOST");
    yard.stands(&apply.execution_id, "apply", StageStatus::OutcomeUnknown)
        .await;
}

#[tokio::test]
async fn without_the_fence_a_lease_that_ended_would_be_kept() {
    let yard = Yard::new().await;
    let (runner, apply) = applying(&yard).await;
    let _without = failpoint::switch_off(format!("pipelines.fence/{}", apply.id));
    renew_past_the_fence(&yard, &runner, &apply).await.unwrap();
    assert_eq!(
        yard.stage(&apply.execution_id, "apply").await.status(),
        StageStatus::Running
    );
}

#[tokio::test]
async fn between_a_leases_end_and_its_fence_the_runner_may_still_come_back() {
    let yard = Yard::new().await;
    let (runner, apply) = applying(&yard).await;
    let expire = "update stage_attempts set expires_at = clock_timestamp() - interval '1 s'";
    yard.admin.batch_execute(expire).await.unwrap();
    runner.renew(&apply).await.unwrap();
    let kept = "select count(*) from stage_attempts
        where status = 'running' and expires_at > clock_timestamp() + interval '25 s'";
    assert_eq!(yard.number(kept).await, 1);
}

#[tokio::test]
async fn leases_that_ended_while_no_service_ran_are_taken_away_when_one_does() {
    let yard = Yard::new().await;
    let (_, apply) = applying(&yard).await;
    let env = yard.served.env.clone();
    let Yard { served, admin, .. } = yard;
    served.running.stop().await;
    let expire = "update stage_attempts set expires_at = clock_timestamp() - interval '16 s',
        fence_at = clock_timestamp() - interval '1 s' where status = 'running'";
    admin.batch_execute(expire).await.unwrap();
    let again = kit::service::start(pipelines::SERVICE, kit::config::Env::of(env)).await;
    let again = again.unwrap_or_else(|problems| panic!("{problems}"));
    let ended = format!(
        "select count(*) from pipeline_executions where id = '{}' and status = 'outcome_unknown'",
        apply.execution_id
    );
    wait("the execution to end", async || {
        admin.query_one(&ended, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    again.stop().await;
}
