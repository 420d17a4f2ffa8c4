//! Resources: the nodes of the canvas, with ids that stay.

use std::collections::BTreeMap;

use api::designs::v1::{Canvas, ListResourcesRequest, Resource};

use crate::world::{Designer, World, canvas, node};

async fn resources(designer: &mut Designer, design: &str, page_size: i32) -> Vec<Resource> {
    let mut all = Vec::new();
    let mut request = ListResourcesRequest {
        design_id: design.to_owned(),
        page_size,
        ..Default::default()
    };
    loop {
        let page = designer
            .designs
            .list_resources(request.clone())
            .await
            .unwrap()
            .into_inner();
        all.extend(page.resources);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test]
async fn a_resource_keeps_its_id_while_its_node_stays() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["b", "a", "c", "B"])).await;
    let first = resources(&mut ada, &made.id, 0).await;
    let nodes: Vec<&str> = first.iter().map(|resource| resource.node_id.as_str()).collect();
    assert_eq!(nodes, ["B", "a", "b", "c"]);
    assert_eq!(first[1].address, "terraform_data.n_a");
    assert_eq!(resources(&mut ada, &made.id, 3).await, first);
    let before: BTreeMap<String, Resource> = first.into_iter().map(|one| (one.node_id.clone(), one)).collect();

    let mut changed = canvas(["d", "c", "b"]);
    changed.nodes[2].name = "other".to_owned();
    changed.nodes[2].resource_type = "random_pet".to_owned();
    let redrawn = ada.redraw(&made, changed).await.unwrap();
    let after = resources(&mut ada, &made.id, 0).await;
    let nodes: Vec<&str> = after.iter().map(|resource| resource.node_id.as_str()).collect();
    assert_eq!(nodes, ["b", "c", "d"]);
    assert_eq!(
        (&after[0].id, after[0].address.as_str()),
        (&before["b"].id, "random_pet.other")
    );
    assert_eq!(after[1], before["c"]);
    assert!(before.values().all(|resource| resource.id != after[2].id));

    // Names may change hands between nodes that stay.
    let mut swapped = canvas(["c", "d"]);
    swapped.nodes[0].name = "n_d".to_owned();
    swapped.nodes[1].name = "n_c".to_owned();
    ada.redraw(&redrawn, swapped).await.unwrap();
    let swapped = resources(&mut ada, &made.id, 0).await;
    assert_eq!((&swapped[0].id, swapped[0].name.as_str()), (&after[1].id, "n_d"));
    assert_eq!((&swapped[1].id, swapped[1].name.as_str()), (&after[2].id, "n_c"));
}

#[tokio::test]
async fn a_canvas_of_2000_nodes_has_2000_resources() {
    let world = World::new().await;
    let mut ada = world.designer();
    let drawn = Canvas {
        nodes: (0..2_000).map(|index| node(&format!("n{index}"))).collect(),
        edges: Vec::new(),
    };
    let made = ada.draw(drawn).await;
    assert_eq!(resources(&mut ada, &made.id, 1_000).await.len(), 2_000);
    ada.redraw(&made, Canvas::default()).await.unwrap();
    assert_eq!(resources(&mut ada, &made.id, 0).await, []);
}
