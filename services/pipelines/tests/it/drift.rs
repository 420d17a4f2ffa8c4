//! Drift starts the pipelines that ask for it, once.

use api::{
    events::v1::{ActorKind, DriftChecked, Event, event::Payload},
    pipelines::v1::{CreatePipelineRequest, Execution, ExecutionStatus, ListExecutionsRequest, Pipeline, Trigger},
};
use kit::ids::OrgId;
use uuid::Uuid;

use crate::world::{Operator, World, drifted, new, wait};

async fn executions(operator: &Operator, pipeline: &Pipeline) -> Vec<Execution> {
    let request = ListExecutionsRequest {
        pipeline_id: pipeline.id.clone(),
        ..Default::default()
    };
    operator.clone().list(request).await.unwrap().executions
}

fn answers_drift(name: &str, design: Uuid) -> CreatePipelineRequest {
    CreatePipelineRequest {
        triggers: vec![Trigger::Drift.into()],
        ..new(name, design)
    }
}

#[tokio::test]
async fn drift_starts_a_pipeline_with_the_newest_version_in_the_name_of_the_service() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(answers_drift("repairs", design)).await.unwrap();
    world.tell_design(world.org, design, 5, 9);
    let event = world.tell_drift(world.org, drifted(design, 2), 1);
    wait("an execution", async || !executions(&ada, &pipeline).await.is_empty()).await;
    let started = executions(&ada, &pipeline).await.remove(0);
    assert_eq!(started.trigger(), Trigger::Drift);
    assert_eq!(started.status(), ExecutionStatus::Queued);
    assert_eq!((started.started_by.as_str(), started.design_version), ("", 5));
    assert_eq!(started.cause_event_id, event);

    let events = world.events().await;
    let of = |action: &str| -> Event {
        let mut all = events.iter();
        let found =
            all.find(|event| event.action == action && event.resource.as_ref().is_some_and(|it| it.id == started.id));
        found.cloned().unwrap_or_else(|| panic!("{action} in {events:?}"))
    };
    let acted = of("pipelines.TriggerExecution");
    let changed = events
        .iter()
        .find(|event| matches!(&event.payload, Some(Payload::ExecutionChanged(it)) if it.execution_id == started.id))
        .unwrap();
    let actor = acted.actor.clone().unwrap();
    assert!(acted.audited);
    assert_eq!((actor.kind(), actor.id.as_str()), (ActorKind::Service, "pipelines"));
    for follows in [&acted, changed] {
        assert_eq!(
            (follows.cause_event_id.as_str(), follows.chain_depth),
            (event.as_str(), 2)
        );
        assert_eq!(follows.request_id, "the check");
    }
    // Whoever moves it on, it stays in the chain.
    ada.cancel(&started.id).await.unwrap();
    let events = world.events().await;
    let cancelled = events
        .iter()
        .find(|event| matches!(&event.payload, Some(Payload::ExecutionChanged(it)) if it.status == "cancelled"));
    let cancelled = cancelled.unwrap();
    assert_eq!(
        (cancelled.cause_event_id.as_str(), cancelled.chain_depth),
        (event.as_str(), 2)
    );
}

#[tokio::test]
async fn drift_that_goes_on_starts_nothing_while_it_is_being_answered() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(answers_drift("repairs", design)).await.unwrap();
    for _ in 0..3 {
        world.tell_drift(world.org, drifted(design, 1), 0);
    }
    world.applied("pipelines.drift", 3).await;
    let started = executions(&ada, &pipeline).await;
    assert_eq!(started.len(), 1);
    // A run by hand does not stand in its way.
    ada.run(&pipeline, 0).await.unwrap();
    ada.cancel(&started[0].id).await.unwrap();
    world.tell_drift(world.org, drifted(design, 1), 0);
    world.applied("pipelines.drift", 4).await;
    assert_eq!(executions(&ada, &pipeline).await.len(), 3);
}

#[tokio::test]
async fn only_drift_of_the_pipelines_own_design_and_state_that_was_found_starts_it() {
    let world = World::new().await;
    let (mut ada, design, other) = (world.operator(), world.published(), world.published());
    let asked = ada.make(answers_drift("asked", design)).await.unwrap();
    let not_asked = ada.make(new("not asked", design)).await.unwrap();
    let second = ada.make(answers_drift("second", design)).await.unwrap();
    let elsewhere = CreatePipelineRequest {
        state_name: "test".to_owned(),
        ..answers_drift("elsewhere", design)
    };
    let elsewhere = ada.make(elsewhere).await.unwrap();
    let without_effect = [
        (world.org, drifted(design, 0), 0),
        (world.org, drifted(other, 1), 0),
        (OrgId::new(), drifted(design, 1), 0),
        (world.org, drifted(design, 1), 4),
        (
            world.org,
            DriftChecked {
                part: 1,
                ..drifted(design, 101)
            },
            0,
        ),
        (
            world.org,
            DriftChecked {
                design_id: String::new(),
                ..drifted(design, 1)
            },
            0,
        ),
        (
            world.org,
            DriftChecked {
                state_name: "no//name".to_owned(),
                ..drifted(design, 1)
            },
            0,
        ),
    ];
    let count = i64::try_from(without_effect.len()).unwrap();
    for (org, checked, depth) in without_effect {
        world.tell_drift(org, checked, depth);
    }
    world.applied("pipelines.drift", count).await;
    assert_eq!(world.number("select count(*) from pipeline_executions").await, 0);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    world.tell_drift(world.org, drifted(design, 101), 0);
    world.applied("pipelines.drift", count + 1).await;
    for (pipeline, expected) in [(asked, 1), (second, 1), (not_asked, 0), (elsewhere, 0)] {
        assert_eq!(executions(&ada, &pipeline).await.len(), expected, "{}", pipeline.name);
    }
}

#[tokio::test]
async fn drift_of_a_design_without_a_version_starts_nothing() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), Uuid::now_v7());
    world.tell_design(world.org, design, 0, 1);
    ada.make(answers_drift("early", design)).await.unwrap();
    world.tell_drift(world.org, drifted(design, 1), 0);
    world.applied("pipelines.drift", 1).await;
    assert_eq!(world.number("select count(*) from pipeline_executions").await, 0);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
}

#[tokio::test]
async fn drift_waits_for_the_newest_version_while_designs_is_away() {
    let world = World::with(&[("BOARD3_DESIGNS", "http://127.0.0.1:1")]).await;
    let (mut ada, design) = (world.operator(), Uuid::now_v7());
    let known = format!(
        "insert into designs (org_id, design_id, name, latest_version, deleted, revision)
         values ('{}', '{design}', 'network', 0, false, 1)",
        world.org
    );
    world.admin.batch_execute(&known).await.unwrap();
    let pipeline = ada.make(answers_drift("repairs", design)).await.unwrap();
    world.tell_design(world.org, design, 5, 9);
    world.tell_drift(world.org, drifted(design, 1), 0);
    // A replica that reaches designs.
    let mut env = world.served.env.clone();
    env.retain(|(name, _)| name != "BOARD3_DESIGNS");
    env.push(("BOARD3_DESIGNS".to_owned(), world.served.office.address("designs")));
    let replica = kit::service::start(pipelines::SERVICE, kit::config::Env::of(env)).await;
    let replica = replica.unwrap_or_else(|problems| panic!("{problems}"));
    wait("an execution", async || !executions(&ada, &pipeline).await.is_empty()).await;
    assert_eq!(executions(&ada, &pipeline).await[0].design_version, 5);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    replica.stop().await;
}
