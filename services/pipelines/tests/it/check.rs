//! Checks for drift that schedules ask for: each request is answered once.

use std::time::{Duration, SystemTime};

use api::{
    events::v1::{Actor, ActorKind, DriftCheckAnswered, DriftCheckRequested, Event, event::Payload},
    pipelines::v1::{
        CheckJobCredentialRequest, CreatePipelineRequest, ExecutionStatus, Pipeline, StageDefinition, StageKind,
        StageOutcome, Trigger, job_service_client::JobServiceClient,
    },
};
use kit::ids::UserId;
use uuid::Uuid;

use crate::world::{Operator, World, new, reason, stages, wait};

/// A request for a pipeline in somebody's name, that may wait a minute.
fn asked(pipeline: &Pipeline, author: UserId) -> DriftCheckRequested {
    DriftCheckRequested {
        drift_run_id: Uuid::now_v7().to_string(),
        drift_schedule_id: Uuid::now_v7().to_string(),
        pipeline_id: pipeline.id.clone(),
        state_name: "prod".to_owned(),
        begin_before: Some((SystemTime::now() + Duration::from_secs(60)).into()),
        author: Some(Actor {
            kind: ActorKind::User.into(),
            id: author.0.to_string(),
        }),
    }
}

/// Tells a request, and answers its event's id.
fn tell(world: &World, asked: &DriftCheckRequested) -> String {
    let event_id = Uuid::now_v7().to_string();
    let event = Event {
        event_id: event_id.clone(),
        organization_id: world.org.to_string(),
        action: "terraform_state.RequestDriftCheck".to_owned(),
        payload: Some(Payload::DriftCheckRequested(asked.clone())),
        ..Event::default()
    };
    world.served.office.tell_event("terraform_state", event);
    event_id
}

async fn answers(world: &World, asked: &DriftCheckRequested) -> Vec<DriftCheckAnswered> {
    let events = world.events().await.into_iter();
    let answers = events.filter_map(|event| match event.payload {
        Some(Payload::DriftCheckAnswered(answer)) if answer.drift_run_id == asked.drift_run_id => Some(answer),
        _ => None,
    });
    answers.collect()
}

/// The only answer to a request.
async fn answer(world: &World, asked: &DriftCheckRequested) -> DriftCheckAnswered {
    tell(world, asked);
    wait("an answer", async || !answers(world, asked).await.is_empty()).await;
    let [answer] = <[_; 1]>::try_from(answers(world, asked).await).unwrap();
    answer
}

async fn refusal(world: &World, asked: &DriftCheckRequested) -> String {
    let answer = answer(world, asked).await;
    assert_eq!(answer.execution_id, "");
    answer.refusal
}

async fn made(world: &World) -> (Operator, Pipeline) {
    let mut ada = world.operator();
    let pipeline = ada.make(new("checked", world.published())).await.unwrap();
    (ada, pipeline)
}

#[tokio::test]
async fn a_schedule_gets_an_execution_that_checks_for_drift_and_does_nothing_else() {
    let world = World::new().await;
    let (mut ada, pipeline) = made(&world).await;
    let asked = asked(&pipeline, ada.id);
    let answer = answer(&world, &asked).await;
    let execution = ada.execution(&answer.execution_id).await.unwrap();
    assert_eq!(
        (execution.trigger(), execution.started_by.as_str()),
        (Trigger::Schedule, "")
    );
    assert_eq!(stages(&execution), ["drift READY"]);
    let runner = ada.register("r1").await;
    let lease = ada.acquire(&runner).await.unwrap();
    assert_eq!((lease.kind(), lease.state_name.as_str()), (StageKind::Drift, "prod"));
    // Its job can take no lock and write no state.
    let mut jobs = JobServiceClient::new(world.served.peer("terraform_state"));
    let check = CheckJobCredentialRequest {
        job_credential: lease.job_credential.clone(),
    };
    let job = jobs.check_job_credential(check).await.unwrap().into_inner();
    assert_eq!(
        job.permissions,
        [
            "designs.design.export",
            "terraform_state.state.read",
            "terraform_state.state.download",
            "terraform_state.drift.write"
        ]
    );
    ada.start(&lease).await;
    ada.complete(&lease, StageOutcome::Succeeded).await;
    let done = ada.execution(&execution.id).await.unwrap();
    assert_eq!(done.status(), ExecutionStatus::Succeeded);
    let told = world.told(&execution.id).await;
    assert_eq!(told.last().unwrap().0, "succeeded");
}

#[tokio::test]
async fn a_request_that_comes_again_has_no_second_effect() {
    let world = World::new().await;
    let (ada, pipeline) = made(&world).await;
    let asked = asked(&pipeline, ada.id);
    let event = Event {
        event_id: tell(&world, &asked),
        organization_id: world.org.to_string(),
        payload: Some(Payload::DriftCheckRequested(asked.clone())),
        ..Event::default()
    };
    world.served.office.tell_event("terraform_state", event);
    world.applied("pipelines.checks", 2).await;
    assert_eq!(answers(&world, &asked).await.len(), 1);
    assert_eq!(world.number("select count(*) from pipeline_executions").await, 1);
}

#[tokio::test]
async fn what_cannot_be_checked_is_refused_with_its_reason() {
    let world = World::new().await;
    let (mut ada, pipeline) = made(&world).await;
    let good = asked(&pipeline, ada.id);
    let again = || Uuid::now_v7().to_string();
    for (wrong, expected) in [
        (
            DriftCheckRequested {
                pipeline_id: again(),
                ..good.clone()
            },
            "PIPELINE_NOT_FOUND",
        ),
        (
            DriftCheckRequested {
                state_name: "other".to_owned(),
                ..good.clone()
            },
            "PIPELINE_OF_ANOTHER_STATE",
        ),
        (asked(&pipeline, UserId::new()), "PERMISSION_MISSING"),
        (
            DriftCheckRequested {
                begin_before: Some(SystemTime::now().into()),
                ..good.clone()
            },
            "LATE",
        ),
    ] {
        let wrong = DriftCheckRequested {
            drift_run_id: again(),
            ..wrong
        };
        assert_eq!(refusal(&world, &wrong).await, expected);
    }
    let unpublished = Uuid::now_v7();
    world.tell_design(world.org, unpublished, 0, 1);
    let early = CreatePipelineRequest {
        state_name: "early".to_owned(),
        ..new("early", unpublished)
    };
    let early = ada.make(early).await.unwrap();
    let early = DriftCheckRequested {
        state_name: "early".to_owned(),
        ..asked(&early, ada.id)
    };
    assert_eq!(refusal(&world, &early).await, "DESIGN_NOT_PUBLISHED");
    // A run that is queued or at work goes first.
    let run = ada.run(&pipeline, 0).await.unwrap();
    assert_eq!(refusal(&world, &good).await, "STATE_BUSY");
    ada.cancel(&run.id).await.unwrap();
    let next = asked(&pipeline, ada.id);
    assert_eq!(answer(&world, &next).await.refusal, "");
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
}

#[tokio::test]
async fn a_pipeline_may_check_for_drift_by_hand_and_is_made_with_no_schedule() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let checks = CreatePipelineRequest {
        stages: vec![StageDefinition {
            name: "look".to_owned(),
            kind: StageKind::Drift.into(),
            needs: Vec::new(),
        }],
        ..new("by hand", design)
    };
    let pipeline = ada.make(checks).await.unwrap();
    let run = ada.run(&pipeline, 0).await.unwrap();
    assert_eq!(stages(&run), ["look READY"]);
    let scheduled = CreatePipelineRequest {
        triggers: vec![Trigger::Schedule.into()],
        ..new("scheduled", design)
    };
    let fields = vec!["triggers[0]".to_owned()];
    assert_eq!(
        reason(ada.make(scheduled).await),
        ("INVALID_REQUEST".to_owned(), fields)
    );
}

#[tokio::test]
async fn the_migration_goes_down_and_up_over_rows() {
    let world = World::new().await;
    let (mut ada, pipeline) = made(&world).await;
    let runner = ada.register("r1").await;
    assert_eq!(answer(&world, &asked(&pipeline, ada.id)).await.refusal, "");
    ada.work(&runner, StageOutcome::Succeeded).await;
    ada.run(&pipeline, 0).await.unwrap();
    // As the owner, under whose policies the rows lie, where nobody else holds them.
    let World { served, admin, .. } = world;
    served.running.stop().await;
    let down = include_str!("../../../../migrations/pipelines/0002_drift_checks/down.sql");
    let up = include_str!("../../../../migrations/pipelines/0002_drift_checks/up.sql");
    for script in [down, up] {
        let script = format!(
            "begin; set local role board3_pipelines_owner; set local search_path = pipelines; {script}; commit;"
        );
        admin.batch_execute(&script).await.unwrap();
    }
    let left =
        "select string_agg(trigger::text || ' ' || kind::text, ', ' order by s.position) from pipeline_executions e
                join pipeline_stages s on (s.org_id, s.execution_id) = (e.org_id, e.id)";
    let left: String = admin.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, "manual validate, manual plan, manual apply");
}
