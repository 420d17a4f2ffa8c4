//! The same request again: one effect, one answer.

use api::designs::v1::{CreateDesignRequest, DeleteDesignRequest, PublishDesignRequest, UpdateDesignRequest};
use uuid::Uuid;

use crate::world::{World, canvas, new, reason, update};

fn request_id() -> String {
    Uuid::now_v7().to_string()
}

#[tokio::test]
async fn a_repeat_is_answered_as_the_first_and_does_nothing() {
    let world = World::new().await;
    let mut ada = world.designer();
    let create = CreateDesignRequest {
        request_id: request_id(),
        ..new("once", canvas(["a"]))
    };
    let made = ada.make(create.clone()).await.unwrap();
    let change = UpdateDesignRequest {
        request_id: request_id(),
        ..update(&made, &["name"])
    };
    let changed = ada.designs.update_design(change.clone()).await.unwrap().into_inner();
    let publish = PublishDesignRequest {
        design_id: made.id.clone(),
        request_id: request_id(),
        ..Default::default()
    };
    let published = ada.designs.publish_design(publish.clone()).await.unwrap().into_inner();
    let delete = DeleteDesignRequest {
        design_id: made.id.clone(),
        request_id: request_id(),
        ..Default::default()
    };
    ada.designs.delete_design(delete.clone()).await.unwrap();
    let (rows, told) = (world.rows().await, world.told().await);

    assert_eq!(ada.make(create.clone()).await.unwrap(), made);
    assert_eq!(
        ada.designs.update_design(change.clone()).await.unwrap().into_inner(),
        changed
    );
    assert_eq!(
        ada.designs.publish_design(publish).await.unwrap().into_inner(),
        published
    );
    ada.designs.delete_design(delete).await.unwrap();
    assert_eq!((world.rows().await, world.told().await), (rows, told));

    let other = CreateDesignRequest {
        name: "twice".to_owned(),
        ..create.clone()
    };
    assert_eq!(reason(ada.make(other).await).0, "REQUEST_ID_REUSED");
    // Somebody else's request ids are theirs.
    assert_ne!(world.designer().make(create).await.unwrap().id, made.id);
}

#[tokio::test]
async fn twins_at_once_make_one_design() {
    let world = World::new().await;
    let ada = world.designer();
    let create = CreateDesignRequest {
        request_id: request_id(),
        ..new("once", canvas(["a"]))
    };
    let twins = (0..8).map(|_| {
        let (mut client, create) = (ada.designs.clone(), create.clone());
        tokio::spawn(async move { client.create_design(create).await.unwrap().into_inner().design.unwrap() })
    });
    let mut made = Vec::new();
    for twin in twins.collect::<Vec<_>>() {
        made.push(twin.await.unwrap());
    }
    assert!(made.iter().all(|design| *design == made[0]));
    assert_eq!(world.number("select count(*) from designs").await, 1);
    assert_eq!(world.told().await.len(), 1);
}
