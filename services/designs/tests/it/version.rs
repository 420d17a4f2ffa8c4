//! Versions: frozen once, numbered without gaps.

use api::designs::v1::{DesignStatus, ListVersionsRequest, Version};

use crate::world::{Designer, World, canvas, reason};

async fn versions(designer: &mut Designer, design: &str, page_size: i32) -> Vec<Vec<Version>> {
    let mut pages = Vec::new();
    let mut request = ListVersionsRequest {
        design_id: design.to_owned(),
        page_size,
        ..Default::default()
    };
    loop {
        let page = designer
            .designs
            .list_versions(request.clone())
            .await
            .unwrap()
            .into_inner();
        pages.push(page.versions);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

#[tokio::test]
async fn publishing_freezes_the_canvas_once() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    let first = ada.publish(&made.id, "first").await.unwrap();
    let version = first.version.clone().unwrap();
    assert!(first.created);
    assert_eq!((version.number, version.message.as_str()), (1, "first"));
    assert_eq!(
        (&version.canvas_hash, &version.author_id),
        (&made.canvas_hash, &ada.id.to_string())
    );
    let published = ada.get(&made.id).await.unwrap();
    assert_eq!(
        (published.status(), published.latest_version),
        (DesignStatus::Published, 1)
    );
    assert_ne!(published.etag, made.etag);

    let told = world.told().await;
    let again = world.designer().publish(&made.id, "again").await.unwrap();
    assert_eq!((again.created, again.version), (false, Some(version.clone())));
    assert_eq!(ada.get(&made.id).await.unwrap(), published);
    assert_eq!(world.told().await, told, "nothing changed, so nothing is told");
    // A name is no part of the canvas.
    let renamed = ada.rename(&published, "renamed").await.unwrap();
    assert!(!ada.publish(&made.id, "").await.unwrap().created);

    let redrawn = ada.redraw(&renamed, canvas(["b"])).await.unwrap();
    assert_eq!(redrawn.status(), DesignStatus::Published);
    assert_eq!(
        ada.publish(&made.id, "second").await.unwrap().version.unwrap().number,
        2
    );
    let back = ada.get(&made.id).await.unwrap();
    ada.redraw(&back, canvas(["a"])).await.unwrap();
    let third = ada.publish(&made.id, "back to the first").await.unwrap();
    assert!(third.created, "only the newest version is compared");
    assert_eq!(third.version.as_ref().unwrap().canvas_hash, version.canvas_hash);

    let pages = versions(&mut ada, &made.id, 2).await;
    let numbers: Vec<Vec<i32>> = pages
        .iter()
        .map(|page| page.iter().map(|version| version.number).collect())
        .collect();
    assert_eq!(numbers, [vec![3, 2], vec![1]]);
    assert_eq!(pages[1], [version]);
}

#[tokio::test]
async fn publishing_at_once_makes_one_version() {
    let world = World::new().await;
    let made = world.designer().draw(canvas(["a"])).await;
    let publishers = (0..8).map(|_| {
        let (mut designer, id) = (world.designer(), made.id.clone());
        tokio::spawn(async move { designer.publish(&id, "").await.unwrap() })
    });
    let mut created = 0;
    for publisher in publishers.collect::<Vec<_>>() {
        let answer = publisher.await.unwrap();
        created += usize::from(answer.created);
        assert_eq!(answer.version.unwrap().number, 1);
    }
    assert_eq!(created, 1);
    assert_eq!(world.number("select count(*) from design_versions").await, 1);
}

#[tokio::test]
async fn versions_outlive_their_design_and_are_not_listed_without_it() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    ada.publish(&made.id, "").await.unwrap();
    ada.delete(&made.id, "").await.unwrap();
    let request = ListVersionsRequest {
        design_id: made.id.clone(),
        ..Default::default()
    };
    assert_eq!(reason(ada.designs.list_versions(request).await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(world.number("select count(*) from design_versions").await, 1);
}
