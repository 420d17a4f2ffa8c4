//! Making, changing and deleting designs.

use api::designs::v1::{Canvas, CloudProvider, CreateDesignRequest, Design, DesignStatus, ListDesignsRequest};
use kit::ids::Principal;
use uuid::Uuid;

use crate::world::{Designer, World, canvas, edge, metadata, new, node, reason, update};

#[tokio::test]
async fn a_design_is_made_read_listed_changed_and_deleted() {
    let world = World::new().await;
    let mut ada = world.designer();
    let drawn = Canvas {
        nodes: vec![node("a"), node("b")],
        edges: vec![edge("a", "b")],
    };
    let made = ada
        .make(CreateDesignRequest {
            description: "two nodes".to_owned(),
            ..new("first", drawn.clone())
        })
        .await
        .unwrap();
    assert_eq!((made.name.as_str(), made.description.as_str()), ("first", "two nodes"));
    assert_eq!(made.cloud_provider(), CloudProvider::Builtin);
    assert_eq!((made.status(), made.latest_version), (DesignStatus::Draft, 0));
    assert_eq!(made.canvas, Some(drawn));
    assert_eq!(made.canvas_hash.len(), 64);
    assert_eq!(made.creator.as_ref().unwrap().id, ada.id.to_string());
    assert_eq!(made.template, None);
    assert_eq!(ada.get(&made.id).await.unwrap(), made);
    let listed = ada.list(ListDesignsRequest::default()).await.unwrap();
    let without_canvas = Design {
        canvas: None,
        ..made.clone()
    };
    assert_eq!(listed.designs, [without_canvas]);

    let renamed = ada.rename(&made, "second").await.unwrap();
    assert_eq!(renamed.name, "second");
    assert_ne!(renamed.etag, made.etag);
    assert!(renamed.updated_at.unwrap().seconds >= made.updated_at.unwrap().seconds);
    assert_eq!(ada.get(&made.id).await.unwrap(), renamed);

    ada.delete(&made.id, &renamed.etag).await.unwrap();
    assert_eq!(reason(ada.get(&made.id).await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(reason(ada.rename(&renamed, "third").await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(reason(ada.delete(&made.id, "").await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(reason(ada.publish(&made.id, "").await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(ada.list(ListDesignsRequest::default()).await.unwrap().designs, []);
    assert_eq!(
        world
            .number("select count(*) from designs where deleted_at is not null")
            .await,
        1
    );

    let told = [(1, false), (2, false), (3, true)].map(|(revision, deleted)| (made.id.clone(), revision, deleted));
    assert_eq!(world.told().await, told);
    let audited = ["CreateDesign", "UpdateDesign", "DeleteDesign"];
    let audited = audited.map(|action| (format!("designs.{action}"), made.id.clone()));
    let audited_for_this = world.audited().await;
    assert!(
        audited.iter().all(|row| audited_for_this.contains(row)),
        "{audited_for_this:?}"
    );
}

#[tokio::test]
async fn a_blank_design_needs_a_name_and_a_provider_alone() {
    let world = World::new().await;
    let mut ada = world.designer();
    let blank = CreateDesignRequest {
        canvas: None,
        ..new("blank", Canvas::default())
    };
    let made = ada.make(blank).await.unwrap();
    assert_eq!(made.canvas, Some(Canvas::default()));
    // SHA-256 of `{}`.
    assert_eq!(
        made.canvas_hash,
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    );
}

#[tokio::test]
async fn a_stale_etag_is_refused_with_the_current_one() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    let current = ada.rename(&made, "current").await.unwrap();
    let before = world.rows().await;
    let refused = ada.rename(&made, "late").await.unwrap_err();
    assert_eq!(metadata(&refused, "current_etag"), current.etag);
    assert_eq!(reason(Err::<(), _>(refused)).0, "ETAG_MISMATCH");
    assert_eq!(reason(ada.delete(&made.id, &made.etag).await).0, "ETAG_MISMATCH");
    let mut publish = api::designs::v1::PublishDesignRequest {
        design_id: made.id.clone(),
        etag: made.etag.clone(),
        ..Default::default()
    };
    assert_eq!(
        reason(ada.designs.publish_design(publish.clone()).await).0,
        "ETAG_MISMATCH"
    );
    publish.etag = "anything".to_owned();
    assert_eq!(reason(ada.designs.publish_design(publish).await).0, "ETAG_MISMATCH");
    assert_eq!(world.rows().await, before);
    assert_eq!(ada.get(&made.id).await.unwrap(), current);
}

#[tokio::test]
async fn only_masked_fields_change() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a", "b"])).await;
    let wanted = Design {
        id: made.id.clone(),
        etag: made.etag.clone(),
        name: "other".to_owned(),
        description: "other".to_owned(),
        cloud_provider: CloudProvider::Aws.into(),
        canvas: Some(canvas(["c"])),
        status: DesignStatus::Archived.into(),
        latest_version: 7,
        ..Default::default()
    };
    let described = ada.update(&wanted, &["description"]).await.unwrap();
    let expected = Design {
        description: "other".to_owned(),
        etag: described.etag.clone(),
        updated_at: described.updated_at,
        ..made
    };
    assert_eq!(described, expected);
    let wanted = Design {
        etag: described.etag.clone(),
        ..wanted
    };
    let moved = ada.update(&wanted, &["cloud_provider", "canvas"]).await.unwrap();
    assert_eq!(
        (moved.name.as_str(), moved.cloud_provider()),
        ("drawn", CloudProvider::Aws)
    );
    assert_eq!(moved.canvas, Some(canvas(["c"])));
    assert_ne!(moved.canvas_hash, expected.canvas_hash);
    let blank = Design { canvas: None, ..moved };
    assert_eq!(
        ada.update(&blank, &["canvas"]).await.unwrap().canvas,
        Some(Canvas::default())
    );
}

#[tokio::test]
async fn of_updates_at_once_one_wins() {
    let world = World::new().await;
    let made = world.designer().draw(canvas(["a"])).await;
    let rivals = (0..8).map(|rival| {
        let mut designer = world.designer();
        let made = made.clone();
        tokio::spawn(async move { designer.rename(&made, &format!("rival {rival}")).await })
    });
    let mut won = Vec::new();
    for rival in rivals.collect::<Vec<_>>() {
        match rival.await.unwrap() {
            Ok(design) => won.push(design),
            Err(status) => assert_eq!(reason(Err::<(), _>(status)).0, "ETAG_MISMATCH"),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(world.designer().get(&made.id).await.unwrap().name, won[0].name);
    assert_eq!(world.number("select max(revision) from designs").await, 2);
}

#[tokio::test]
async fn an_api_key_makes_designs_and_has_no_name() {
    let world = World::new().await;
    let key = Uuid::now_v7();
    world.served.office.grant(
        world.org,
        Principal::ApiKey(key),
        &["designs.design.write", "designs.design.read"],
    );
    let token = world
        .served
        .office
        .token(world.org, Principal::ApiKey(key), Uuid::now_v7(), 1);
    let mut key_holder = Designer::new(world.served.with(&token), kit::ids::UserId(key));
    let made = key_holder.draw(Canvas::default()).await;
    let creator = key_holder.get(&made.id).await.unwrap().creator.unwrap();
    assert_eq!((creator.id, creator.first_name), (key.to_string(), String::new()));
}

#[tokio::test]
async fn each_permission_opens_its_own_calls_only() {
    let world = World::new().await;
    let made = world.designer().draw(canvas(["a"])).await;
    let reader = world.served.caller(world.org, &["designs.design.read"]);
    let mut reader = Designer::new(reader, kit::ids::UserId::new());
    assert_eq!(reader.get(&made.id).await.unwrap(), made);
    assert_eq!(
        reason(reader.designs.update_design(update(&made, &["name"])).await).0,
        "PERMISSION_MISSING"
    );
    assert_eq!(reason(reader.delete(&made.id, "").await).0, "PERMISSION_MISSING");
    assert_eq!(reason(reader.publish(&made.id, "").await).0, "PERMISSION_MISSING");
}
