//! What does not begin costs nothing, and every lease comes to its end.

use api::pipelines::v1::{StageKind, StageStatus};

use crate::runner_world::{Yard, only, reason, wait};

#[tokio::test]
async fn an_apply_whose_plan_cannot_be_opened_has_not_begun() {
    let yard = Yard::new().await;
    let run = yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let apply = runner.up_to_apply().await;
    let flip = "update stage_attempts
        set plan = set_byte(plan, length(plan) - 1, get_byte(plan, length(plan) - 1) # 1) where plan is not null";
    yard.admin.batch_execute(flip).await.unwrap();
    assert_eq!(reason(runner.start(&apply).await), "CONTENT_CORRUPT");
    assert_eq!(yard.stage(&run.id, "apply").await.status(), StageStatus::Leased);
    yard.admin.batch_execute(flip).await.unwrap();
    assert_eq!(runner.start(&apply).await.unwrap().plan, b"the plan file");
}

#[tokio::test]
async fn what_was_leased_and_never_begun_costs_no_attempt() {
    let yard = Yard::new().await;
    let run = yard.run(&yard.pipeline("prod", only(StageKind::Plan)).await).await;
    let runner = yard.runner("r1").await;
    for _ in 0..4 {
        let lease = runner.take().await;
        let expire = format!(
            "update stage_attempts set expires_at = clock_timestamp() - interval '16 s',
             fence_at = clock_timestamp() - interval '1 s' where id = '{}'",
            lease.id
        );
        yard.admin.batch_execute(&expire).await.unwrap();
    }
    let fifth = runner.take().await;
    runner.work(&fifth).await;
    let stage = yard.stands(&run.id, "only", StageStatus::Succeeded).await;
    assert_eq!(stage.attempts.len(), 5);
}

#[tokio::test]
async fn a_lease_that_cannot_be_ended_keeps_no_other_from_its_end() {
    let yard = Yard::new().await;
    let pipeline = yard.pipeline("prod", only(StageKind::Validate)).await;
    let runner = yard.runner("r1").await;
    // More than are listed at a time, and one after them.
    let mut last = String::new();
    for _ in 0..=50 {
        yard.run(&pipeline).await;
        last = runner.take().await.id;
    }
    let refuse = format!(
        "create function stuck() returns trigger language plpgsql as 'begin raise exception ''stuck''; end';
         create trigger stuck before update of status on stage_attempts for each row
           when (new.id <> '{last}' and new.status = 'lost') execute function stuck();
         update stage_attempts set expires_at = clock_timestamp() - interval '16 s', fence_at = clock_timestamp()
           - case when id = '{last}' then interval '1 s' else interval '2 s' end"
    );
    yard.admin.batch_execute(&refuse).await.unwrap();
    let ended = format!("select count(*) from stage_attempts where id = '{last}' and status = 'lost'");
    wait("the last lease to end", async || yard.number(&ended).await == 1).await;
    let stuck = "select count(*) from stage_attempts where status = 'leased'";
    assert_eq!(yard.number(stuck).await, 50);
}
