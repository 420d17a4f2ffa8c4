//! Of applies on one state only one goes on, however they race.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use api::pipelines::v1::StageKind;
use kit::failpoint;

use crate::runner_world::{Yard, done, reason, wait};

#[tokio::test]
async fn of_two_applies_on_one_state_the_second_waits_and_others_pass_it() {
    let yard = Yard::new().await;
    let (one, two) = (yard.runner("r1").await, yard.runner("r2").await);
    // Plans and validations first: an apply would be taken before a younger execution's validation.
    for state in ["prod", "prod", "dev"] {
        yard.run_on(state).await;
    }
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(one.take().await);
    }
    for lease in &waiting {
        one.work(lease).await;
    }
    let plans = [one.take().await, one.take().await, one.take().await];
    for lease in &plans {
        one.work(lease).await;
    }
    let first = one.take().await;
    assert_eq!((first.kind(), first.state_name.as_str()), (StageKind::Apply, "prod"));
    let other = two.take().await;
    assert_eq!(other.state_name, "dev", "the apply on the busy state is passed over");
    assert!(two.acquire(0).await.is_none());
    one.start(&first).await.unwrap();
    assert!(two.acquire(0).await.is_none());
    // The state is free with the report, and who waits hears of it.
    let waiter = tokio::spawn(async move { two.take().await });
    one.complete(done(&first)).await.unwrap();
    assert_eq!(waiter.await.unwrap().state_name, "prod");
}

#[tokio::test]
async fn an_apply_on_a_state_waits_for_the_fence_of_a_lost_one() {
    let yard = Yard::hasty().await;
    let (one, two) = (yard.runner("r1").await, yard.runner("r2").await);
    yard.run_on("prod").await;
    let first = one.up_to_apply().await;
    one.start(&first).await.unwrap();
    yard.run_on("prod").await;
    let second = two.up_to_apply().await;
    assert_ne!(second.execution_id, first.execution_id);
    let unfenced = "select count(*) from stage_attempts lost, stage_attempts next
        where lost.status = 'outcome_unknown' and next.status = 'leased' and next.leased_at < lost.fence_at";
    assert_eq!(yard.number(unfenced).await, 0);
    assert_eq!(
        yard.number("select count(*) from stage_attempts where status = 'outcome_unknown'")
            .await,
        1
    );
    assert_eq!(reason(one.renew(&first).await), "LEASE_LOST");
}

/// Lets a claim of an apply stop while it holds what it found, and another one on the same state come after it.
/// Answers what the second got before and after the first could go on.
async fn overtaken(yard: &Yard) -> (bool, bool) {
    let (one, two) = (yard.runner("r1").await, yard.runner("r2").await);
    let runs = [yard.run_on("prod").await, yard.run_on("prod").await];
    for _ in 0..2 {
        let both = [one.take().await, one.take().await];
        for lease in &both {
            one.work(lease).await;
        }
    }
    let point = failpoint::arm(format!("pipelines.claim.held/{}", yard.org), failpoint::Action::Hold).only(1);
    let first = tokio::spawn(async move { one.take().await });
    point.held(1).await;
    let second = tokio::spawn(async move { two.acquire(0).await });
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())";
    wait("the second to wait or to have an answer", async || {
        second.is_finished() || yard.number(waits).await == 1
    })
    .await;
    let before = second.is_finished();
    point.release();
    let first = first.await.unwrap();
    assert!(runs.iter().any(|run| run.id == first.execution_id));
    (before, second.await.unwrap().is_some())
}

#[tokio::test]
async fn two_applies_on_one_state_never_overlap_however_they_race() {
    let yard = Yard::new().await;
    assert_eq!(overtaken(&yard).await, (false, false));
}

#[tokio::test]
async fn without_the_states_lock_two_applies_would_overlap() {
    let yard = Yard::new().await;
    let _without = failpoint::switch_off(format!("pipelines.one_apply/{}", yard.org));
    assert_eq!(overtaken(&yard).await, (true, true));
}

#[tokio::test]
async fn many_applies_on_one_state_go_one_by_one() {
    let yard = Yard::new().await;
    let runner = yard.runner("r0").await;
    let (going, most, left) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(8)),
    );
    for _ in 0..8 {
        yard.run_on("prod").await;
    }
    let mut racing = Vec::new();
    for name in ["r1", "r2", "r3", "r4"] {
        let (runner, going, most, left) = (yard.runner(name).await, going.clone(), most.clone(), left.clone());
        racing.push(tokio::spawn(async move {
            while left.load(Ordering::SeqCst) > 0 {
                let Some(lease) = runner.acquire(50).await else {
                    continue;
                };
                let apply = lease.kind() == StageKind::Apply;
                if apply {
                    most.fetch_max(going.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                }
                runner.start(&lease).await.unwrap();
                runner.renew(&lease).await.unwrap();
                if apply {
                    going.fetch_sub(1, Ordering::SeqCst);
                    left.fetch_sub(1, Ordering::SeqCst);
                }
                runner.complete(done(&lease)).await.unwrap();
            }
        }));
    }
    for racer in racing {
        racer.await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert!(runner.acquire(0).await.is_none());
    let succeeded = "select count(*) from pipeline_executions where status = 'succeeded'";
    assert_eq!(yard.number(succeeded).await, 8);
}
