//! Another organization's designs are not there.

use api::designs::v1::{CreateDesignRequest, ListDesignsRequest, ListResourcesRequest, ListVersionsRequest};
use kit::ids::{OrgId, UserId};
use testkit::Role;

use crate::world::{World, canvas, new, reason};

#[tokio::test]
async fn what_belongs_to_another_organization_is_not_found_and_not_touched() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    ada.publish(&made.id, "").await.unwrap();
    let template = "insert into templates (org_id, id, name, category, cloud_provider, canvas, canvas_hash)
        values ($1::text::uuid, $2::text::uuid, 'theirs', 'web', 'aws', '{}', sha256('{}'))";
    let template_id = UserId::new().to_string();
    world
        .admin
        .execute(template, &[&world.org.to_string(), &template_id])
        .await
        .unwrap();
    // Once by the database, once by the cache.
    ada.get(&made.id).await.unwrap();

    let mut eve = world.designer_of(OrgId::new(), UserId::new());
    let before = world.rows().await;
    let id = made.id.as_str();
    assert_eq!(reason(eve.get(id).await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(reason(eve.rename(&made, "stolen").await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(reason(eve.delete(id, "").await).0, "RESOURCE_NOT_FOUND");
    assert_eq!(reason(eve.publish(id, "").await).0, "RESOURCE_NOT_FOUND");
    let versions = ListVersionsRequest {
        design_id: id.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(eve.designs.list_versions(versions).await).0,
        "RESOURCE_NOT_FOUND"
    );
    let resources = ListResourcesRequest {
        design_id: id.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(eve.designs.list_resources(resources).await).0,
        "RESOURCE_NOT_FOUND"
    );
    let from_theirs = CreateDesignRequest {
        template_id,
        canvas: None,
        ..new("copy", Default::default())
    };
    assert_eq!(reason(eve.make(from_theirs).await).0, "RESOURCE_NOT_FOUND");
    let by_ada = ListDesignsRequest {
        creator_id: ada.id.to_string(),
        ..Default::default()
    };
    assert_eq!(eve.list(by_ada).await.unwrap().designs, []);
    let templates = eve
        .templates
        .list_templates(api::designs::v1::ListTemplatesRequest::default())
        .await
        .unwrap();
    assert!(
        templates
            .into_inner()
            .templates
            .iter()
            .all(|template| template.platform)
    );
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn the_app_role_changes_no_version_and_no_name_and_no_platform_template() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    ada.publish(&made.id, "").await.unwrap();
    let app = world.served.database.client(designs::SERVICE.slice, Role::App).await;
    app.batch_execute(&format!("set app.org = '{}'", world.org))
        .await
        .unwrap();
    for denied in [
        "update design_versions set message = 'rewritten'",
        "delete from design_versions",
        "update user_names set first_name = 'Eve'",
        "insert into user_names values (gen_random_uuid(), gen_random_uuid(), '', '', 1)",
    ] {
        let error = app.batch_execute(denied).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{denied}");
    }
    assert_eq!(app.execute("update templates set name = 'ours'", &[]).await.unwrap(), 0);
    assert_eq!(app.execute("delete from templates", &[]).await.unwrap(), 0);
    let platform = "insert into templates (org_id, id, name, category, cloud_provider, canvas, canvas_hash)
        values ('00000000-0000-7000-8000-000000000000', gen_random_uuid(), 'x', 'x', 'aws', '{}', sha256('{}'))";
    assert_eq!(
        app.batch_execute(platform).await.unwrap_err().code().unwrap().code(),
        "42501"
    );
    let worker = world.served.database.client(designs::SERVICE.slice, Role::Worker).await;
    for hidden in ["designs", "design_versions", "resources", "templates"] {
        let error = worker
            .batch_execute(&format!("select from {hidden}"))
            .await
            .unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{hidden}");
    }
}
