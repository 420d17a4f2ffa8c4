//! Lists, page by page.

use std::collections::BTreeMap;

use api::pipelines::v1::{ExecutionStatus, ListExecutionsRequest, ListPipelinesRequest, StageOutcome};
use kit::ids::OrgId;
use uuid::Uuid;

use crate::world::{Operator, World, new, reason};

/// The names on each page.
async fn pipelines(operator: &mut Operator, mut request: ListPipelinesRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = operator
            .pipelines
            .list_pipelines(request.clone())
            .await
            .unwrap()
            .into_inner();
        pages.push(page.pipelines.into_iter().map(|pipeline| pipeline.name).collect());
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

/// The ids on each page.
async fn executions(operator: &mut Operator, mut request: ListExecutionsRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = operator.list(request.clone()).await.unwrap();
        assert!(page.executions.iter().all(|execution| execution.stages.is_empty()));
        pages.push(page.executions.into_iter().map(|execution| execution.id).collect());
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

#[tokio::test]
async fn pipelines_come_by_name_and_by_design() {
    let world = World::new().await;
    let (mut ada, one, two) = (world.operator(), world.published(), world.published());
    for (name, design) in [("d", one), ("a", two), ("c", one), ("e", two), ("b", one)] {
        ada.make(new(name, design)).await.unwrap();
    }
    let of_size = |page_size| ListPipelinesRequest {
        page_size,
        ..Default::default()
    };
    assert_eq!(pipelines(&mut ada, of_size(0)).await, [["a", "b", "c", "d", "e"]]);
    assert_eq!(
        pipelines(&mut ada, of_size(2)).await,
        [vec!["a", "b"], vec!["c", "d"], vec!["e"]]
    );
    let of_one = ListPipelinesRequest {
        design_id: one.to_string(),
        ..of_size(1)
    };
    assert_eq!(pipelines(&mut ada, of_one.clone()).await.concat(), ["b", "c", "d"]);
    let token = ada
        .pipelines
        .list_pipelines(of_one)
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    let elsewhere = ListPipelinesRequest {
        page_token: token,
        ..of_size(1)
    };
    assert_eq!(
        reason(ada.pipelines.list_pipelines(elsewhere).await).0,
        "PAGE_TOKEN_INVALID"
    );
    let wrong = ListPipelinesRequest {
        page_size: -1,
        design_id: "x".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(ada.pipelines.list_pipelines(wrong).await).1,
        ["design_id", "page_size"]
    );
}

#[tokio::test]
async fn executions_come_newest_first_by_pipeline_and_by_status() {
    let world = World::new().await;
    let (mut ada, design) = (world.operator(), world.published());
    let one = ada.make(new("one", design)).await.unwrap();
    let two = ada.make(new("two", design)).await.unwrap();
    let mut ids = Vec::new();
    for index in 0..6 {
        let pipeline = if index % 2 == 0 { &one } else { &two };
        ids.push(ada.run(pipeline, 0).await.unwrap().id);
    }
    let runner = ada.register("r1").await;
    // The oldest of what is ready comes first: the validation of the first execution, which fails.
    assert_eq!(ada.work(&runner, StageOutcome::Failed).await.execution_id, ids[0]);
    assert_eq!(ada.acquire(&runner).await.unwrap().execution_id, ids[1]);
    ada.cancel(&ids[1]).await.unwrap();
    ada.cancel(&ids[2]).await.unwrap();
    assert_eq!(ada.acquire(&runner).await.unwrap().execution_id, ids[3]);
    let newest: Vec<String> = ids.iter().rev().cloned().collect();
    let of_size = |page_size| ListExecutionsRequest {
        page_size,
        ..Default::default()
    };
    assert_eq!(executions(&mut ada, of_size(0)).await.concat(), newest);
    assert_eq!(
        executions(&mut ada, of_size(4)).await,
        [newest[..4].to_vec(), newest[4..].to_vec()]
    );
    let of_two = ListExecutionsRequest {
        pipeline_id: two.id.clone(),
        ..of_size(2)
    };
    assert_eq!(
        executions(&mut ada, of_two.clone()).await,
        [vec![ids[5].clone(), ids[3].clone()], vec![ids[1].clone()]]
    );
    let mut by_status = BTreeMap::new();
    for status in 1..=7 {
        let only = ListExecutionsRequest { status, ..of_size(0) };
        let status = ExecutionStatus::try_from(status).unwrap().as_str_name();
        by_status.insert(status, executions(&mut ada, only).await.concat());
    }
    let expected = [
        ("EXECUTION_STATUS_QUEUED", vec![ids[5].clone(), ids[4].clone()]),
        ("EXECUTION_STATUS_RUNNING", vec![ids[3].clone()]),
        ("EXECUTION_STATUS_CANCELLING", vec![ids[1].clone()]),
        ("EXECUTION_STATUS_SUCCEEDED", vec![]),
        ("EXECUTION_STATUS_FAILED", vec![ids[0].clone()]),
        ("EXECUTION_STATUS_CANCELLED", vec![ids[2].clone()]),
        ("EXECUTION_STATUS_OUTCOME_UNKNOWN", vec![]),
    ];
    assert_eq!(by_status, BTreeMap::from(expected));
    let both = ListExecutionsRequest {
        status: ExecutionStatus::Queued.into(),
        ..of_two.clone()
    };
    assert_eq!(executions(&mut ada, both).await.concat(), [ids[5].clone()]);

    let token = ada.list(of_two.clone()).await.unwrap().next_page_token;
    let with_token = |request: &ListExecutionsRequest| ListExecutionsRequest {
        page_token: token.clone(),
        ..request.clone()
    };
    let mut eve = world.operator_of(OrgId::new());
    assert_eq!(reason(ada.list(with_token(&of_size(2))).await).0, "PAGE_TOKEN_INVALID");
    assert_eq!(reason(eve.list(with_token(&of_two)).await).0, "PAGE_TOKEN_INVALID");
    let wrong = ListExecutionsRequest {
        page_size: -1,
        pipeline_id: Uuid::now_v7().simple().to_string(),
        status: 99,
        ..Default::default()
    };
    assert_eq!(reason(ada.list(wrong).await).1, ["pipeline_id", "status", "page_size"]);
}
