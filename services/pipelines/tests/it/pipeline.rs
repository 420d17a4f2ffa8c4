//! Pipelines are made.

use api::pipelines::v1::{
    CreatePipelineRequest, GetPipelineRequest, Pipeline, RunPipelineRequest, StageDefinition, StageKind, Trigger,
};
use kit::ids::{OrgId, Principal};
use tonic::Code;
use uuid::Uuid;

use crate::runner_world::Yard;
use crate::world::{World, metadata, new, reason};

fn stage(name: &str, kind: StageKind, needs: &[&str]) -> StageDefinition {
    StageDefinition {
        name: name.to_owned(),
        kind: kind.into(),
        needs: needs.iter().map(|&need| need.to_owned()).collect(),
    }
}

#[tokio::test]
async fn a_pipeline_is_made_with_the_standard_stages_and_read_as_made() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let made = ada.make(new("network", design)).await.unwrap();
    assert_eq!(
        made,
        Pipeline {
            id: made.id.clone(),
            name: "network".to_owned(),
            design_id: design.to_string(),
            state_name: "prod".to_owned(),
            stages: vec![
                stage("validate", StageKind::Validate, &[]),
                stage("plan", StageKind::Plan, &["validate"]),
                stage("apply", StageKind::Apply, &["plan"]),
            ],
            triggers: vec![Trigger::Manual.into()],
            creator_id: ada.id.to_string(),
            created_at: made.created_at,
        }
    );
    let request = GetPipelineRequest {
        pipeline_id: made.id.clone(),
    };
    let read = ada.pipelines.get_pipeline(request).await.unwrap().into_inner();
    assert_eq!(read.pipeline, Some(made.clone()));
    let audited = world.audited().await;
    assert_eq!(audited, [("pipelines.CreatePipeline".to_owned(), made.id.clone())]);

    let again = ada.make(new("network", design)).await;
    assert_eq!(again.as_ref().unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(reason(again).0, "RESOURCE_EXISTS");
}

#[tokio::test]
async fn stages_and_triggers_are_kept_as_they_were_given() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let stages = vec![
        stage("apply-it", StageKind::Apply, &["check", "plan_1"]),
        stage("check", StageKind::Validate, &[]),
        stage("plan_1", StageKind::Plan, &[]),
    ];
    let request = CreatePipelineRequest {
        stages: stages.clone(),
        triggers: vec![Trigger::Drift.into(), Trigger::Drift.into()],
        state_name: "team/prod.eu-1".to_owned(),
        ..new("ordered", design)
    };
    let made = ada.make(request).await.unwrap();
    assert_eq!(made.stages, stages);
    assert_eq!(made.triggers, [Trigger::Manual, Trigger::Drift].map(i32::from));
    assert_eq!(made.state_name, "team/prod.eu-1");
}

#[tokio::test]
async fn everything_wrong_with_a_pipeline_is_told_at_once_and_nothing_is_written() {
    let world = World::new().await;
    let mut ada = world.operator();
    let before = world.rows().await;
    let request = CreatePipelineRequest {
        name: String::new(),
        design_id: "d".to_owned(),
        state_name: "a//b".to_owned(),
        stages: vec![
            stage("Plan", StageKind::Plan, &["nobody"]),
            stage("apply", StageKind::Apply, &[]),
            stage("round", StageKind::Validate, &["round"]),
            stage("apply", StageKind::Unspecified, &[]),
        ],
        triggers: vec![0, 9],
        ..Default::default()
    };
    let (why, mut fields) = reason(ada.make(request).await);
    fields.sort();
    assert_eq!(why, "INVALID_REQUEST");
    assert_eq!(
        fields,
        [
            "design_id",
            "name",
            "stages[0].name",
            "stages[0].needs[0]",
            "stages[1].needs",
            "stages[2].needs",
            "stages[3].kind",
            "stages[3].name",
            "state_name",
            "triggers[0]",
            "triggers[1]",
        ]
    );
    let two_plans = CreatePipelineRequest {
        stages: vec![
            stage("p", StageKind::Plan, &[]),
            stage("q", StageKind::Plan, &[]),
            stage("a", StageKind::Apply, &["p", "q"]),
        ],
        ..new("two plans", Uuid::now_v7())
    };
    assert_eq!(reason(ada.make(two_plans).await).1, ["stages[2].needs"]);
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn a_design_that_was_made_a_moment_ago_is_found_and_one_that_is_not_there_is_not() {
    let world = World::new().await;
    let mut ada = world.operator();
    // Told and not waited for: the service waits itself.
    for name in ["one", "two", "three"] {
        ada.make(new(name, world.published())).await.unwrap();
    }
    let nowhere = ada.make(new("nowhere", Uuid::now_v7())).await;
    assert_eq!(metadata(nowhere, "resource"), "design");
    let theirs = Uuid::now_v7();
    world.tell_design(OrgId::new(), theirs, 1, 2);
    assert_eq!(metadata(ada.make(new("theirs", theirs)).await, "resource"), "design");
}

#[tokio::test]
async fn an_older_word_about_a_design_changes_nothing() {
    let world = World::new().await;
    let mut ada = world.operator();
    let design = Uuid::now_v7();
    world.tell_design(world.org, design, 3, 7);
    world.tell_design(world.org, design, 2, 6);
    world.applied("pipelines.designs", 2).await;
    let pipeline = ada.make(new("network", design)).await.unwrap();
    assert_eq!(ada.run(&pipeline, 0).await.unwrap().design_version, 3);
}

#[tokio::test]
async fn a_job_makes_and_runs_no_pipelines() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    ada.run(&pipeline, 0).await.unwrap();
    let runner = ada.register("r1").await;
    let lease = ada.acquire(&runner).await.unwrap();
    let before = world.rows().await;
    let job = world.served.with(&lease.job_credential);
    let mut pipelines = api::pipelines::v1::pipeline_service_client::PipelineServiceClient::new(job);
    let made = pipelines.create_pipeline(new("from a job", design)).await;
    let request = RunPipelineRequest {
        pipeline_id: pipeline.id,
        ..Default::default()
    };
    let run = pipelines.run_pipeline(request).await;
    for refused in [made.unwrap_err(), run.unwrap_err()] {
        assert_eq!(reason::<()>(Err(refused)).0, "PERMISSION_MISSING");
    }
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn an_api_key_makes_pipelines() {
    let world = World::new().await;
    let (key, design) = (Uuid::now_v7(), world.published());
    let principal = Principal::ApiKey(key);
    world.served.office.grant(world.org, principal, &["pipelines.*.*"]);
    let token = world.served.office.token(world.org, principal, key, 1);
    let caller = world.served.with(&token);
    let mut pipelines = api::pipelines::v1::pipeline_service_client::PipelineServiceClient::new(caller);
    let made = pipelines.create_pipeline(new("by key", design)).await.unwrap();
    assert_eq!(made.into_inner().pipeline.unwrap().creator_id, key.to_string());
}

#[tokio::test]
async fn while_designs_is_away_a_known_version_runs_and_the_newest_is_not_guessed() {
    let yard = Yard::with(&[("BOARD3_DESIGNS", "http://127.0.0.1:1")]).await;
    let pipeline = yard.pipeline("prod", Vec::new()).await;
    let run = async |version: i32| {
        let request = RunPipelineRequest {
            pipeline_id: pipeline.clone(),
            design_version: version,
            ..Default::default()
        };
        yard.people.clone().run_pipeline(request).await
    };
    let execution = run(2).await.unwrap().into_inner().execution.unwrap();
    assert_eq!(execution.design_version, 2);
    for unknown in [0, 4] {
        let (reason, _) = reason(run(unknown).await);
        assert_eq!(reason, "DEPENDENCY_UNAVAILABLE");
    }
}
