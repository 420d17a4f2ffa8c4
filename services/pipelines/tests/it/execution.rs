//! Executions are queued, done, and cancelled.

use api::{
    events::v1::{DesignChanged, event::Payload},
    pipelines::v1::{
        CancelExecutionRequest, ExecutionStatus, ListStagesRequest, RunPipelineRequest, StageOutcome, StageStatus,
        Trigger,
    },
};
use uuid::Uuid;

use crate::world::{World, metadata, new, reason, stages, standing};

#[tokio::test]
async fn a_run_is_queued_and_done_stage_by_stage() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let queued = ada.run(&pipeline, 0).await.unwrap();
    assert_eq!(standing(&queued), (ExecutionStatus::Queued, "waiting for a runner"));
    assert_eq!(stages(&queued), ["validate READY", "plan BLOCKED", "apply BLOCKED"]);
    assert_eq!(queued.trigger(), Trigger::Manual);
    assert_eq!(queued.started_by, ada.id.to_string());
    assert_eq!((queued.design_version, queued.state_name.as_str()), (1, "prod"));
    assert_eq!((queued.started_at, queued.finished_at), (None, None));
    assert_eq!(ada.execution(&queued.id).await.unwrap(), queued);

    let runner = ada.register("r1").await;
    let lease = ada.acquire(&runner).await.unwrap();
    let running = ada.execution(&queued.id).await.unwrap();
    assert_eq!(standing(&running), (ExecutionStatus::Running, ""));
    assert!(running.started_at.is_some());
    assert_eq!(running.stages[0].status(), StageStatus::Leased);
    assert_eq!(running.stages[0].attempts[0].id, lease.id);
    assert_eq!(running.stages[0].attempts[0].runner_name, "r1");
    ada.start(&lease).await;
    ada.complete(&lease, StageOutcome::Succeeded).await;
    let between = ada.execution(&queued.id).await.unwrap();
    assert_eq!(
        standing(&between),
        (ExecutionStatus::Running, "stage plan waits for a runner")
    );
    ada.work(&runner, StageOutcome::Succeeded).await;
    ada.work(&runner, StageOutcome::Succeeded).await;
    let done = ada.execution(&queued.id).await.unwrap();
    assert_eq!(standing(&done), (ExecutionStatus::Succeeded, ""));
    assert_eq!(
        stages(&done),
        ["validate SUCCEEDED", "plan SUCCEEDED", "apply SUCCEEDED"]
    );
    assert!(done.finished_at.is_some());

    let told = world.told(&queued.id).await;
    let statuses: Vec<&str> = told.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["queued", "running", "succeeded"]);
    assert!(told.is_sorted_by(|one, next| one.1 < next.1), "{told:?}");
    assert_eq!(reason(ada.cancel(&queued.id).await).0, "EXECUTION_FINISHED");
    assert_eq!(metadata(ada.cancel(&queued.id).await, "status"), "succeeded");
}

#[tokio::test]
async fn a_failed_stage_ends_the_execution_and_says_so() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let id = ada.run(&pipeline, 1).await.unwrap().id;
    let runner = ada.register("r1").await;
    ada.work(&runner, StageOutcome::Succeeded).await;
    ada.work(&runner, StageOutcome::Failed).await;
    assert_eq!(ada.acquire(&runner).await, None);
    let failed = ada.execution(&id).await.unwrap();
    assert_eq!(
        standing(&failed),
        (ExecutionStatus::Failed, "stage plan failed: TERRAFORM_FAILED")
    );
    assert_eq!(stages(&failed), ["validate SUCCEEDED", "plan FAILED", "apply SKIPPED"]);
    assert_eq!(failed.stages[1].failure_reason, "TERRAFORM_FAILED");
}

#[tokio::test]
async fn a_version_that_cannot_be_taken_is_refused_by_its_reason() {
    let world = World::new().await;
    let mut ada = world.operator();
    let design = Uuid::now_v7();
    world.tell_design(world.org, design, 0, 1);
    let pipeline = ada.make(new("network", design)).await.unwrap();
    assert_eq!(reason(ada.run(&pipeline, 0).await).0, "DESIGN_NOT_PUBLISHED");
    assert_eq!(reason(ada.run(&pipeline, -1).await).1, ["design_version"]);
    // Published and not waited for: RunPipeline waits itself, so the newest is the newest.
    world.tell_design(world.org, design, 1, 2);
    assert_eq!(ada.run(&pipeline, 0).await.unwrap().design_version, 1);
    world.tell_design(world.org, design, 2, 3);
    assert_eq!(ada.run(&pipeline, 0).await.unwrap().design_version, 2);
    assert_eq!(ada.run(&pipeline, 1).await.unwrap().design_version, 1);
    assert_eq!(metadata(ada.run(&pipeline, 3).await, "resource"), "design_version");
    let gone = DesignChanged {
        design_id: design.to_string(),
        revision: 4,
        deleted: true,
        name: "network".to_owned(),
        latest_version: 2,
    };
    world
        .served
        .office
        .tell_as("designs", world.org, Payload::DesignChanged(gone));
    // A version that is known is not waited for, so the word is waited for with the newest.
    for version in [0, 1] {
        assert_eq!(metadata(ada.run(&pipeline, version).await, "resource"), "design");
    }
    let nowhere = RunPipelineRequest {
        pipeline_id: Uuid::now_v7().to_string(),
        ..Default::default()
    };
    assert_eq!(
        metadata(ada.pipelines.run_pipeline(nowhere).await, "resource"),
        "pipeline"
    );
}

#[tokio::test]
async fn what_nobody_works_on_is_cancelled_at_once_and_twice_is_once() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let id = ada.run(&pipeline, 0).await.unwrap().id;
    let cancelled = ada.cancel(&id).await.unwrap();
    assert_eq!(
        standing(&cancelled),
        (ExecutionStatus::Cancelled, "cancelled before stage validate was done")
    );
    assert_eq!(
        stages(&cancelled),
        ["validate CANCELLED", "plan CANCELLED", "apply CANCELLED"]
    );
    assert_eq!(cancelled.stages[0].failure_reason, "CANCELLED");
    assert_eq!(cancelled.started_at, None);
    assert_eq!(ada.cancel(&id).await.unwrap(), cancelled);
    let runner = ada.register("r1").await;
    assert_eq!(ada.acquire(&runner).await, None);
    let told = world.told(&id).await;
    assert_eq!(told, [("queued".to_owned(), 1), ("cancelled".to_owned(), 2)]);
    let nowhere = ada.cancel(&Uuid::now_v7().to_string()).await;
    assert_eq!(metadata(nowhere, "resource"), "execution");
}

#[tokio::test]
async fn a_runner_that_works_is_waited_for_and_has_the_last_word() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let id = ada.run(&pipeline, 0).await.unwrap().id;
    let runner = ada.register("r1").await;
    let lease = ada.acquire(&runner).await.unwrap();
    ada.start(&lease).await;
    let cancelling = ada.cancel(&id).await.unwrap();
    assert_eq!(
        standing(&cancelling),
        (
            ExecutionStatus::Cancelling,
            "cancelled; stage validate waits for its runner to stop"
        )
    );
    assert_eq!(
        stages(&cancelling),
        ["validate RUNNING", "plan CANCELLED", "apply CANCELLED"]
    );
    assert_eq!(ada.cancel(&id).await.unwrap(), cancelling);
    ada.complete(&lease, StageOutcome::Cancelled).await;
    let cancelled = ada.execution(&id).await.unwrap();
    assert_eq!(cancelled.status(), ExecutionStatus::Cancelled);
    let told = world.told(&id).await;
    let statuses: Vec<&str> = told.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["queued", "running", "cancelling", "cancelled"]);
}

#[tokio::test]
async fn a_repeat_of_a_run_or_a_cancellation_has_one_effect() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let run = RunPipelineRequest {
        pipeline_id: pipeline.id.clone(),
        request_id: Uuid::now_v7().to_string(),
        ..Default::default()
    };
    let first = ada.pipelines.run_pipeline(run.clone()).await.unwrap().into_inner();
    let rows = world.rows().await;
    let second = ada.pipelines.run_pipeline(run.clone()).await.unwrap().into_inner();
    assert_eq!((&first, world.rows().await), (&second, rows));
    let other = RunPipelineRequest {
        design_version: 1,
        ..run
    };
    assert_eq!(reason(ada.pipelines.run_pipeline(other).await).0, "REQUEST_ID_REUSED");

    let cancel = CancelExecutionRequest {
        execution_id: first.execution.unwrap().id,
        request_id: Uuid::now_v7().to_string(),
    };
    let first = ada
        .pipelines
        .cancel_execution(cancel.clone())
        .await
        .unwrap()
        .into_inner();
    let (rows, told) = (world.rows().await, world.events().await.len());
    let second = ada.pipelines.cancel_execution(cancel).await.unwrap().into_inner();
    assert_eq!(
        (first, rows, told),
        (second, world.rows().await, world.events().await.len())
    );
}

#[tokio::test]
async fn stages_are_listed_with_their_attempts() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let id = ada.run(&pipeline, 0).await.unwrap().id;
    let runner = ada.register("r1").await;
    ada.work(&runner, StageOutcome::Succeeded).await;
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    for _ in 0..2 {
        let request = ListStagesRequest {
            execution_id: id.clone(),
            page_size: 2,
            page_token,
        };
        let page = ada.pipelines.list_stages(request).await.unwrap().into_inner();
        listed.extend(page.stages);
        page_token = page.next_page_token;
    }
    assert_eq!(page_token, "");
    assert_eq!(listed, ada.execution(&id).await.unwrap().stages);
    assert_eq!(listed[0].attempts[0].status(), StageStatus::Succeeded);
    let nowhere = ListStagesRequest {
        execution_id: Uuid::now_v7().to_string(),
        ..Default::default()
    };
    assert_eq!(
        metadata(ada.pipelines.list_stages(nowhere).await, "resource"),
        "execution"
    );
}

#[tokio::test]
async fn runners_and_cancellations_at_once_leave_no_execution_between_two_stools() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..9 {
        ids.push(ada.run(&pipeline, 0).await.unwrap().id);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for name in ["r1", "r2", "r3", "r4"] {
        let mut runner = ada.clone();
        let registered = runner.register(name).await;
        tasks.spawn(async move {
            // Who finds nothing may find something when another has reported: three times nothing is the end.
            let mut nothing = 0;
            while nothing < 3 {
                match runner.acquire(&registered).await {
                    Some(lease) => {
                        runner.start(&lease).await;
                        runner.complete(&lease, StageOutcome::Succeeded).await;
                        nothing = 0;
                    }
                    None => nothing += 1,
                }
            }
        });
    }
    for id in ids.iter().step_by(3) {
        let (mut canceller, id) = (ada.clone(), id.clone());
        tasks.spawn(async move {
            for _ in 0..2 {
                if let Err(refused) = canceller.cancel(&id).await {
                    assert_eq!(reason::<()>(Err(refused)).0, "EXECUTION_FINISHED");
                }
            }
        });
    }
    tasks.join_all().await;
    let runner = ada.register("last").await;
    while let Some(lease) = ada.acquire(&runner).await {
        ada.start(&lease).await;
        ada.complete(&lease, StageOutcome::Succeeded).await;
    }
    for (at, id) in ids.iter().enumerate() {
        let execution = ada.execution(id).await.unwrap();
        let ends = [ExecutionStatus::Succeeded, ExecutionStatus::Cancelled];
        assert!(ends.contains(&execution.status()), "{execution:?}");
        assert!(
            at % 3 == 0 || execution.status() == ExecutionStatus::Succeeded,
            "{execution:?}"
        );
        let told = world.told(id).await;
        assert!(told.is_sorted_by(|one, next| one.1 < next.1), "{told:?}");
        let ends = told
            .iter()
            .filter(|(status, _)| status == "succeeded" || status == "cancelled");
        assert_eq!(ends.count(), 1, "{told:?}");
    }
}
