//! Leases: fenced by generation, one runner to a stage, one apply to a state.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use api::pipelines::v1::{CompleteRequest, ExecutionStatus, RegisterRequest, StageKind, StageOutcome, StageStatus};
use kit::ids::UserId;

use crate::runner_world::{Runner, Yard, done, metadata, only, reason, report, violated, wait};

#[tokio::test]
async fn an_execution_goes_through_its_stages_in_the_hands_of_a_runner() {
    let yard = Yard::new().await;
    let run = yard.run_on("prod").await;
    assert_eq!(run.status(), ExecutionStatus::Queued);
    let runner = yard.runner("r1").await;

    let validate = runner.take().await;
    assert_eq!(
        (validate.kind(), validate.stage_name.as_str()),
        (StageKind::Validate, "validate")
    );
    assert_eq!((validate.state_name.as_str(), validate.design_version), ("prod", 3));
    assert_eq!((&validate.execution_id, &validate.design_id), (&run.id, &run.design_id));
    assert_eq!((validate.generation, validate.expires_in.unwrap().seconds), (1, 30));
    assert_eq!(yard.execution(&run.id).await.status(), ExecutionStatus::Running);
    assert!(runner.acquire(0).await.is_none(), "the plan waits for the validation");
    let started = runner.start(&validate).await.unwrap();
    assert!(started.plan.is_empty() && (29..=30).contains(&started.expires_in.unwrap().seconds));
    assert_eq!(runner.append(&validate, 0, b"Success!").await.unwrap(), 8);
    let renewed = runner.renew(&validate).await.unwrap();
    assert_eq!((renewed.cancel, renewed.log_offset), (false, 8));
    let report = CompleteRequest {
        log_bytes: 8,
        ..done(&validate)
    };
    runner.complete(report).await.unwrap();

    let plan = runner.take().await;
    assert_eq!(plan.kind(), StageKind::Plan);
    runner.work(&plan).await;
    let apply = runner.take().await;
    assert_eq!(apply.kind(), StageKind::Apply);
    assert_eq!(runner.work(&apply).await.plan, b"the plan file");

    let ended = yard.execution(&run.id).await;
    assert_eq!(ended.status(), ExecutionStatus::Succeeded);
    assert!(ended.started_at.is_some() && ended.finished_at.is_some());
    let attempt = &ended.stages[0].attempts[0];
    assert_eq!((attempt.status(), attempt.number), (StageStatus::Succeeded, 1));
    assert_eq!((attempt.log_bytes, attempt.log_sealed), (8, true));
    assert_eq!((attempt.runner_name.as_str(), &attempt.id), ("r1", &validate.id));
    assert_eq!(yard.ended_jobs().await, [validate.id, plan.id, apply.id]);
    let audited = yard.events().await.into_iter().filter(|event| event.audited);
    let audited: Vec<String> = audited.map(|event| event.action).collect();
    for (action, times) in [
        ("pipelines.Register", 1),
        ("pipelines.Start", 3),
        ("pipelines.Complete", 3),
    ] {
        assert_eq!(
            audited.iter().filter(|&told| told == action).count(),
            times,
            "{audited:?}"
        );
    }
}

#[tokio::test]
async fn of_an_apply_whose_lease_ran_out_nobody_knows_the_outcome_and_nothing_tries_it_again() {
    let yard = Yard::hasty().await;
    let run = yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let apply = runner.up_to_apply().await;
    runner.start(&apply).await.unwrap();
    runner
        .append(&apply, 0, b"aws_instance.web: Creating...")
        .await
        .unwrap();

    let stage = yard.stands(&run.id, "apply", StageStatus::OutcomeUnknown).await;
    assert_eq!(stage.failure_reason, "LEASE_EXPIRED");
    assert!(stage.failure_detail.contains("runner r1"), "{}", stage.failure_detail);
    assert_eq!(stage.attempts.len(), 1);
    let attempt = &stage.attempts[0];
    assert_eq!(attempt.status(), StageStatus::OutcomeUnknown);
    assert_eq!((attempt.log_bytes, attempt.log_sealed), (29, false));
    assert_eq!(yard.execution(&run.id).await.status(), ExecutionStatus::OutcomeUnknown);

    // The runner comes back, with the generation that it knows and with the next one.
    for generation in [1, 2] {
        let mut late = apply.clone();
        late.generation = generation;
        assert_eq!(reason(runner.renew(&late).await), "LEASE_LOST");
        assert_eq!(reason(runner.append(&late, 29, b"more").await), "LEASE_LOST");
        assert_eq!(reason(runner.start(&late).await), "LEASE_LOST");
        let report = CompleteRequest {
            log_bytes: 29,
            ..done(&late)
        };
        assert_eq!(reason(runner.complete(report).await), "LEASE_LOST");
    }
    assert!(runner.acquire(0).await.is_none(), "there is no second attempt");
    assert_eq!(
        yard.number("select count(*) from stage_attempts where generation = 2")
            .await,
        1
    );
    assert_eq!(yard.stage(&run.id, "apply").await, stage);
    assert!(yard.ended_jobs().await.contains(&apply.id));
    let events = yard.events().await;
    let expired = events.iter().find(|event| event.action == "pipelines.ExpireLease");
    let expired = expired.expect("the end of the lease is in the trail");
    assert!(expired.audited);
    assert_eq!(expired.resource.as_ref().unwrap().id, stage.id);
}

#[tokio::test]
async fn a_plan_whose_runner_was_lost_is_tried_three_times_at_most() {
    let yard = Yard::hasty().await;
    let run = yard.run(&yard.pipeline("prod", only(StageKind::Plan)).await).await;
    let runner = yard.runner("r1").await;
    let mut lost = Vec::new();
    for number in 1..=3 {
        let lease = runner.take().await;
        runner.start(&lease).await.unwrap();
        let attempts = yard.stage(&run.id, "only").await.attempts;
        assert_eq!(attempts.last().map(|attempt| attempt.number), Some(number));
        lost.push(lease);
    }
    let stage = yard.stands(&run.id, "only", StageStatus::Failed).await;
    assert_eq!(stage.failure_reason, "LEASE_EXPIRED");
    let attempts = stage.attempts.iter();
    assert!(attempts.clone().all(|attempt| attempt.status() == StageStatus::Lost));
    assert_eq!(attempts.count(), 3);
    assert_eq!(yard.execution(&run.id).await.status(), ExecutionStatus::Failed);
    assert!(runner.acquire(0).await.is_none());
    for lease in &lost {
        assert_eq!(reason(runner.complete(done(lease)).await), "LEASE_LOST");
    }
}

#[tokio::test]
async fn an_apply_that_never_began_is_ready_again_after_its_fence() {
    let yard = Yard::hasty().await;
    let run = yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let first = runner.up_to_apply().await;
    let second = runner.take().await;
    assert_eq!(second.stage_id, first.stage_id);
    assert_eq!(reason(runner.start(&first).await), "LEASE_LOST");
    assert_eq!(runner.work(&second).await.plan, b"the plan file");
    let stage = yard.stands(&run.id, "apply", StageStatus::Succeeded).await;
    let attempts: Vec<StageStatus> = stage.attempts.iter().map(|attempt| attempt.status()).collect();
    assert_eq!(attempts, [StageStatus::Lost, StageStatus::Succeeded]);
}

#[tokio::test]
async fn a_renewed_lease_outlives_many_terms() {
    let yard = Yard::hasty().await;
    let run = yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let lease = runner.take().await;
    runner.start(&lease).await.unwrap();
    let term = std::time::Instant::now();
    wait("four seconds of renewals", async || {
        runner.renew(&lease).await.unwrap();
        term.elapsed().as_secs() >= 4
    })
    .await;
    runner.complete(done(&lease)).await.unwrap();
    assert_eq!(yard.stage(&run.id, "validate").await.attempts.len(), 1);
}

#[tokio::test]
async fn runners_that_race_for_stages_get_each_of_them_once() {
    let yard = Yard::new().await;
    let pipeline = yard.pipeline("prod", only(StageKind::Validate)).await;
    for _ in 0..50 {
        yard.run(&pipeline).await;
    }
    let got = Arc::new(AtomicUsize::new(0));
    let mut racing = Vec::new();
    for name in ["r1", "r2", "r3", "r4"] {
        let (runner, got) = (yard.runner(name).await, got.clone());
        racing.push(tokio::spawn(async move {
            let mut leases = Vec::new();
            while got.load(Ordering::SeqCst) < 50 {
                if let Some(lease) = runner.acquire(100).await {
                    got.fetch_add(1, Ordering::SeqCst);
                    leases.push(lease);
                }
            }
            leases
        }));
    }
    let (mut stages, mut ids, mut credentials) = (HashSet::new(), HashSet::new(), HashSet::new());
    for racer in racing {
        for lease in racer.await.unwrap() {
            stages.insert(lease.stage_id);
            ids.insert(lease.id);
            credentials.insert(lease.job_credential);
        }
    }
    assert_eq!((stages.len(), ids.len(), credentials.len()), (50, 50, 50));
    assert_eq!(yard.number("select count(*) from stage_attempts").await, 50);
    assert_eq!(
        yard.number("select count(*) from pipeline_stages where attempts <> 1")
            .await,
        0
    );
}

#[tokio::test]
async fn a_report_is_taken_once_and_known_again() {
    let yard = Yard::new().await;
    let run = yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let lease = runner.take().await;
    runner.start(&lease).await.unwrap();
    runner.start(&lease).await.unwrap();
    let failed = CompleteRequest {
        failure_reason: "TERRAFORM_FAILED".to_owned(),
        failure_detail: "Error: Unsupported argument".to_owned(),
        ..report(&lease, StageOutcome::Failed)
    };
    runner.complete(failed.clone()).await.unwrap();
    runner.complete(failed.clone()).await.unwrap();
    assert_eq!(reason(runner.complete(done(&lease)).await), "LEASE_LOST");
    let other = CompleteRequest {
        failure_detail: "another".to_owned(),
        ..failed
    };
    assert_eq!(reason(runner.complete(other).await), "LEASE_LOST");
    assert_eq!(reason(runner.renew(&lease).await), "LEASE_LOST");
    assert_eq!(reason(runner.start(&lease).await), "LEASE_LOST");
    assert_eq!(reason(runner.append(&lease, 0, b"late").await), "LOG_SEALED");
    let ended = yard.execution(&run.id).await;
    assert_eq!(ended.status(), ExecutionStatus::Failed);
    let stages: Vec<(StageStatus, &str)> = ended
        .stages
        .iter()
        .map(|stage| (stage.status(), stage.failure_reason.as_str()))
        .collect();
    let skipped = (StageStatus::Skipped, "");
    assert_eq!(stages, [(StageStatus::Failed, "TERRAFORM_FAILED"), skipped, skipped]);
    assert_eq!(ended.stages[0].failure_detail, "Error: Unsupported argument");
}

#[tokio::test]
async fn a_report_that_cannot_be_true_is_refused_and_the_lease_lasts() {
    let yard = Yard::new().await;
    yard.run(&yard.pipeline("prod", only(StageKind::Plan)).await).await;
    let runner = yard.runner("r1").await;
    let lease = runner.take().await;
    assert_eq!(
        violated(runner.complete(done(&lease)).await),
        ["outcome"],
        "it has not begun"
    );
    runner.start(&lease).await.unwrap();
    let succeeded = report(&lease, StageOutcome::Succeeded);
    assert_eq!(
        violated(runner.complete(succeeded).await),
        ["plan"],
        "a plan has a plan file"
    );
    let longer = CompleteRequest {
        log_bytes: 1,
        ..done(&lease)
    };
    let status = runner.complete(longer).await.unwrap_err();
    assert_eq!(metadata(&status, "expected_offset"), "0");
    assert_eq!(reason(Err::<(), _>(status)), "LOG_GAP");
    let failed = CompleteRequest {
        plan: b"p".to_vec(),
        failure_reason: "BAD_LUCK".to_owned(),
        log_bytes: -1,
        ..report(&lease, StageOutcome::Failed)
    };
    assert_eq!(
        violated(runner.complete(failed).await),
        ["failure_reason", "log_bytes", "plan"]
    );
    let unknown = CompleteRequest {
        generation: 0,
        ..report(&lease, StageOutcome::Unspecified)
    };
    assert_eq!(violated(runner.complete(unknown).await), ["generation", "outcome"]);
    // Nobody has cancelled it, and two reasons are for this service to give.
    let cancelled = report(&lease, StageOutcome::Cancelled);
    assert_eq!(violated(runner.complete(cancelled).await), ["outcome"]);
    for own in ["LEASE_EXPIRED", "CANCELLED"] {
        let failed = CompleteRequest {
            failure_reason: own.to_owned(),
            ..report(&lease, StageOutcome::Failed)
        };
        assert_eq!(violated(runner.complete(failed).await), ["failure_reason"]);
    }
    runner.complete(done(&lease)).await.unwrap();
}

#[tokio::test]
async fn a_repeated_start_hears_how_long_the_lease_lasts_now() {
    let yard = Yard::new().await;
    yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let apply = runner.up_to_apply().await;
    let request = api::pipelines::v1::StartRequest {
        lease_id: apply.id.clone(),
        generation: 1,
        request_id: uuid::Uuid::now_v7().to_string(),
    };
    let first = runner.calls.clone().start(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.plan, b"the plan file");
    let earlier =
        "update stage_attempts set expires_at = expires_at - interval '20 s', fence_at = fence_at - interval '20 s'";
    yard.admin.batch_execute(earlier).await.unwrap();
    let again = runner.calls.clone().start(request).await.unwrap().into_inner();
    assert_eq!(again.plan, first.plan);
    assert!(again.expires_in.unwrap().seconds < 11, "{again:?}");
}

#[tokio::test]
async fn a_cancelled_execution_tells_its_runner_and_ends_with_the_report() {
    let yard = Yard::new().await;
    let run = yard.run_on("prod").await;
    let runner = yard.runner("r1").await;
    let apply = runner.up_to_apply().await;
    runner.start(&apply).await.unwrap();
    assert!(!runner.renew(&apply).await.unwrap().cancel);
    let cancelled = yard.cancel(&run.id).await.unwrap();
    assert_eq!(cancelled.status(), ExecutionStatus::Cancelling);
    assert!(runner.renew(&apply).await.unwrap().cancel);
    let interrupted = CompleteRequest {
        failure_detail: "interrupted as asked".to_owned(),
        ..report(&apply, StageOutcome::Cancelled)
    };
    runner.complete(interrupted).await.unwrap();
    let ended = yard.execution(&run.id).await;
    assert_eq!(ended.status(), ExecutionStatus::Cancelled);
    let stage = &ended.stages[2];
    assert_eq!(stage.status(), StageStatus::Cancelled);
    assert_eq!(
        (stage.failure_reason.as_str(), stage.failure_detail.as_str()),
        ("CANCELLED", "interrupted as asked")
    );
}

#[tokio::test]
async fn a_cancelled_plan_whose_runner_was_lost_is_cancelled_and_an_apply_is_unknown() {
    let yard = Yard::hasty().await;
    let runner = yard.runner("r1").await;
    let run = yard.run(&yard.pipeline("prod", only(StageKind::Plan)).await).await;
    let lease = runner.take().await;
    runner.start(&lease).await.unwrap();
    yard.cancel(&run.id).await.unwrap();
    yard.stands(&run.id, "only", StageStatus::Cancelled).await;
    assert_eq!(yard.execution(&run.id).await.status(), ExecutionStatus::Cancelled);

    let run = yard.run_on("prod").await;
    let lease = runner.up_to_apply().await;
    runner.start(&lease).await.unwrap();
    yard.cancel(&run.id).await.unwrap();
    yard.stands(&run.id, "apply", StageStatus::OutcomeUnknown).await;
    assert_eq!(yard.execution(&run.id).await.status(), ExecutionStatus::OutcomeUnknown);
}

#[tokio::test]
async fn a_lease_is_nobodys_but_its_runners() {
    let yard = Yard::new().await;
    yard.run_on("prod").await;
    let owner = yard.runner("r1").await;
    let lease = owner.take().await;
    let other = yard.runner("r2").await;
    let nothing = ["RESOURCE_NOT_FOUND"; 4].map(str::to_owned);
    let tried = async |runner: &Runner| {
        [
            reason(runner.start(&lease).await),
            reason(runner.renew(&lease).await),
            reason(runner.append(&lease, 0, b"x").await),
            reason(runner.complete(done(&lease)).await),
        ]
    };
    assert_eq!(tried(&other).await, nothing);
    // Another runner's name and id do not help either.
    let borrowed = Runner {
        id: owner.id.clone(),
        ..other.clone()
    };
    let request = api::pipelines::v1::AcquireRequest {
        runner_id: borrowed.id.clone(),
        wait: None,
    };
    assert_eq!(
        reason(borrowed.calls.clone().acquire(request).await),
        "RESOURCE_NOT_FOUND"
    );
    owner.renew(&lease).await.unwrap();
    // A name belongs to the organization: whoever registers it takes stages in it from now on, and what is under way
    // stays with whoever took it.
    let heir = UserId::new();
    let taken_over = yard.runner_of(heir, "r1").await;
    assert_eq!(taken_over.id, owner.id);
    assert_eq!(tried(&taken_over).await, nothing);
    let request = api::pipelines::v1::AcquireRequest {
        runner_id: owner.id.clone(),
        wait: None,
    };
    assert_eq!(reason(owner.calls.clone().acquire(request).await), "RESOURCE_NOT_FOUND");
    owner.work(&lease).await;
    let back = RegisterRequest {
        name: "r1".to_owned(),
        ..Default::default()
    };
    let again = owner.calls.clone().register(back).await.unwrap().into_inner();
    assert_eq!(again.runner.unwrap().id, owner.id);
}

#[tokio::test]
async fn expired_leases_end_once_however_many_replicas_look() {
    let yard = Yard::hasty().await;
    let env = yard.served.env.clone();
    let second = kit::service::start(pipelines::SERVICE, kit::config::Env::of(env)).await;
    let second = second.unwrap_or_else(|problems| panic!("{problems}"));
    let pipeline = yard.pipeline("prod", only(StageKind::Validate)).await;
    let runner = yard.runner("r1").await;
    for _ in 0..20 {
        yard.run(&pipeline).await;
    }
    for _ in 0..20 {
        let lease = runner.take().await;
        runner.start(&lease).await.unwrap();
    }
    wait("all to have ended", async || {
        yard.number("select count(*) from stage_attempts where status in ('leased', 'running')")
            .await
            == 0
    })
    .await;
    let lost = yard
        .number("select count(*) from stage_attempts where status = 'lost' and generation = 2")
        .await;
    assert!(lost >= 20, "{lost}");
    let expired = yard.events().await.into_iter();
    let expired = expired.filter(|event| event.action == "pipelines.ExpireLease").count();
    assert_eq!(i64::try_from(expired).unwrap(), lost);
    assert_eq!(i64::try_from(yard.ended_jobs().await.len()).unwrap(), lost);
    second.stop().await;
}
