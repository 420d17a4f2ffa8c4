//! Templates, and designs that start from them.

use api::designs::v1::{
    CloudProvider, CreateDesignRequest, ListDesignsRequest, ListTemplatesRequest, Template, TemplateReference,
};
use kit::ids::UserId;
use testkit::Role;

use crate::world::{Designer, PLATFORM, World, canvas, new, reason};

async fn templates(designer: &mut Designer, mut request: ListTemplatesRequest) -> Vec<Vec<Template>> {
    let mut pages = Vec::new();
    loop {
        let page = designer
            .templates
            .list_templates(request.clone())
            .await
            .unwrap()
            .into_inner();
        pages.push(page.templates);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

fn names(pages: &[Vec<Template>]) -> Vec<Vec<&str>> {
    pages
        .iter()
        .map(|page| page.iter().map(|template| template.name.as_str()).collect())
        .collect()
}

/// A template with a configuration of this many characters.
async fn template(world: &World, org: &str, name: &str, category: &str, provider: &str, size: i32) -> String {
    let insert = "insert into templates (org_id, id, name, category, cloud_provider, canvas, canvas_hash)
        select $1::text::uuid, $2::text::uuid, $3, $4, $5::text::designs.cloud_provider, canvas::json, sha256(convert_to(canvas, 'UTF8'))
        from (select '{\"nodes\":[{\"configuration\":{\"input\":\"' || repeat('x', $6) ||
            '\"},\"id\":\"a\",\"name\":\"a\",\"resourceType\":\"terraform_data\"}]}') as drawn (canvas)";
    let id = UserId::new().to_string();
    world
        .admin
        .execute(insert, &[&org, &id, &name, &category, &provider, &size])
        .await
        .unwrap();
    id
}

#[tokio::test]
async fn a_design_starts_from_each_of_the_platforms_templates() {
    let world = World::new().await;
    let mut ada = world.designer();
    let listed = templates(&mut ada, ListTemplatesRequest::default()).await.concat();
    assert_eq!(listed.len(), 3);
    for template in listed {
        assert!(template.platform && !template.description.is_empty());
        assert_eq!(template.cloud_provider(), CloudProvider::Builtin);
        let drawn = template.canvas.clone().unwrap();
        assert!(drawn.nodes.iter().all(|node| node.resource_type == "terraform_data"));
        let request = CreateDesignRequest {
            template_id: template.id.clone(),
            name: "from a template".to_owned(),
            ..Default::default()
        };
        let made = ada.make(request).await.unwrap();
        let reference = TemplateReference {
            id: template.id,
            name: template.name,
            category: template.category,
        };
        assert_eq!(made.template, Some(reference.clone()));
        assert_eq!(made.cloud_provider(), CloudProvider::Builtin);
        assert_eq!(made.canvas, Some(drawn.clone()));
        assert_eq!(ada.get(&made.id).await.unwrap(), made);
        let listed = ada.list(ListDesignsRequest::default()).await.unwrap().designs;
        assert_eq!(listed[0].template, Some(reference));
        let resources = format!("select count(*) from resources where design_id = '{}'", made.id);
        assert_eq!(world.number(&resources).await, drawn.nodes.len() as i64);
        // What migrations seeded obeys every rule, and is canonical.
        assert_eq!(ada.draw(drawn).await.canvas_hash, made.canvas_hash);
    }
}

#[tokio::test]
async fn templates_are_listed_by_name_category_and_provider() {
    let world = World::new().await;
    let mut ada = world.designer();
    let own = world.org.to_string();
    let web = template(&world, &own, "Aaa", "web", "aws", 1).await;
    template(&world, &own, "Zzz", "web", "builtin", 1).await;
    template(&world, &UserId::new().to_string(), "Foreign", "web", "aws", 1).await;
    let of_size = |page_size| ListTemplatesRequest {
        page_size,
        ..Default::default()
    };
    let all = [
        "Aaa",
        "Event pipeline",
        "Single resource",
        "Three-tier web application",
        "Zzz",
    ];
    assert_eq!(names(&templates(&mut ada, of_size(0)).await), [all]);
    assert_eq!(
        names(&templates(&mut ada, of_size(2)).await),
        [&all[..2], &all[2..4], &all[4..]]
    );
    let in_web = ListTemplatesRequest {
        category: "web".to_owned(),
        ..of_size(2)
    };
    assert_eq!(
        names(&templates(&mut ada, in_web.clone()).await),
        [vec!["Aaa", all[3]], vec!["Zzz"]]
    );
    let for_aws = ListTemplatesRequest {
        cloud_provider: CloudProvider::Aws.into(),
        ..in_web
    };
    let found = templates(&mut ada, for_aws).await.concat();
    assert_eq!((found.len(), found[0].platform), (1, false));
    let none = ListTemplatesRequest {
        category: "nothing".to_owned(),
        ..of_size(0)
    };
    assert_eq!(names(&templates(&mut ada, none).await), [Vec::<&str>::new()]);

    let request = CreateDesignRequest {
        template_id: web,
        cloud_provider: CloudProvider::Gcp.into(),
        name: "elsewhere".to_owned(),
        ..Default::default()
    };
    let made = ada.make(request).await.unwrap();
    assert_eq!(
        made.cloud_provider(),
        CloudProvider::Gcp,
        "the request's provider comes before the template's"
    );
}

#[tokio::test]
async fn a_page_of_large_templates_fits_in_a_message() {
    let world = World::new().await;
    let mut ada = world.designer();
    for index in 0..10 {
        template(&world, PLATFORM, &format!("Large {index}"), "large", "aws", 1_000_000).await;
    }
    let large = ListTemplatesRequest {
        category: "large".to_owned(),
        ..Default::default()
    };
    let pages = templates(&mut ada, large).await;
    assert_eq!(
        names(&pages).concat(),
        (0..10).map(|index| format!("Large {index}")).collect::<Vec<_>>()
    );
    assert!(pages.len() >= 3);
}

#[tokio::test]
async fn a_template_and_a_canvas_exclude_each_other() {
    let world = World::new().await;
    let mut ada = world.designer();
    let both = CreateDesignRequest {
        template_id: "00000000-0000-7000-8000-000000000101".to_owned(),
        ..new("both", canvas(["a"]))
    };
    assert_eq!(
        reason(ada.make(both).await),
        ("INVALID_REQUEST".to_owned(), vec!["canvas".to_owned()])
    );
    let unknown = CreateDesignRequest {
        template_id: UserId::new().to_string(),
        ..new("unknown", Default::default())
    };
    assert_eq!(reason(ada.make(unknown).await).0, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn search_finds_own_and_platform_templates_and_no_others() {
    let world = World::new().await;
    let (own, other) = (world.org.to_string(), UserId::new().to_string());
    let ours = template(&world, &own, "Queue of ours", "web", "aws", 1).await;
    template(&world, &other, "Queue of theirs", "web", "aws", 1).await;
    let app = world.served.database.client(designs::SERVICE.slice, Role::App).await;
    app.batch_execute(&format!("set app.org = '{own}'")).await.unwrap();
    let search = "select id::text from search_templates('queue', 10) as found (id)";
    let found = app.query(search, &[]).await.unwrap();
    let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, [ours, "00000000-0000-7000-8000-000000000103".to_owned()]);
}
