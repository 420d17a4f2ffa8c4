//! What another organization has is not there.

use api::pipelines::v1::{
    GetPipelineRequest, ListExecutionsRequest, ListPipelinesRequest, ListStagesRequest, ReadStageLogsRequest,
};
use kit::ids::OrgId;
use tonic::Code;

use crate::world::{World, new, reason};

#[tokio::test]
async fn another_organization_finds_none_of_it_and_changes_none_of_it() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let theirs = OrgId::new();
    let mut eve = world.operator_of(theirs);
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let execution = ada.run(&pipeline, 0).await.unwrap();
    let before = world.rows().await;
    let get = GetPipelineRequest {
        pipeline_id: pipeline.id.clone(),
    };
    let stages = ListStagesRequest {
        execution_id: execution.id.clone(),
        ..Default::default()
    };
    let logs = ReadStageLogsRequest {
        stage_id: execution.stages[0].id.clone(),
        ..Default::default()
    };
    let refused = [
        eve.make(new("theirs", design)).await.map(drop),
        eve.run(&pipeline, 0).await.map(drop),
        eve.execution(&execution.id).await.map(drop),
        eve.cancel(&execution.id).await.map(drop),
        eve.pipelines.get_pipeline(get.clone()).await.map(drop),
        eve.pipelines.list_stages(stages.clone()).await.map(drop),
        eve.pipelines.read_stage_logs(logs.clone()).await.map(drop),
    ];
    for refusal in refused {
        assert_eq!(refusal.as_ref().unwrap_err().code(), Code::NotFound);
        assert_eq!(reason(refusal).0, "RESOURCE_NOT_FOUND");
    }
    let listed = eve.pipelines.list_pipelines(ListPipelinesRequest::default()).await;
    assert!(listed.unwrap().into_inner().pipelines.is_empty());
    assert!(
        eve.list(ListExecutionsRequest::default())
            .await
            .unwrap()
            .executions
            .is_empty()
    );
    let runner = eve.register("r1").await;
    assert_eq!(eve.acquire(&runner).await, None);
    let mut after = world.rows().await;
    after.insert("runners".to_owned(), before["runners"].clone());
    assert_eq!(after, before);
    // Its owner finds each of them.
    ada.pipelines.get_pipeline(get).await.unwrap();
    ada.pipelines.list_stages(stages).await.unwrap();
    ada.pipelines.read_stage_logs(logs).await.unwrap();
    // The same name is free elsewhere, and so is a design's id.
    world.tell_design(theirs, design, 1, 3);
    let same = eve.make(new("network", design)).await.unwrap();
    assert_ne!(same.id, pipeline.id);
}

#[tokio::test]
async fn who_may_only_read_changes_nothing() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let pipeline = ada.make(new("network", design)).await.unwrap();
    let execution = ada.run(&pipeline, 0).await.unwrap();
    let before = world.rows().await;
    let mut reader = world.operator();
    let caller = world.served.caller_as(world.org, reader.id, &["pipelines.*.read"]);
    reader.pipelines = api::pipelines::v1::pipeline_service_client::PipelineServiceClient::new(caller);
    for refusal in [
        reader.make(new("mine", design)).await.map(drop),
        reader.run(&pipeline, 0).await.map(drop),
        reader.cancel(&execution.id).await.map(drop),
    ] {
        assert_eq!(reason(refusal).0, "PERMISSION_MISSING");
    }
    reader.execution(&execution.id).await.unwrap();
    assert_eq!(world.rows().await, before);
}
