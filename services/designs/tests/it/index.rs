//! Lists are served by their indexes, under row-level security and in the app's role.

use api::designs::v1::{ListDesignsRequest, ListResourcesRequest, ListTemplatesRequest, ListVersionsRequest};
use kit::ids::OrgId;
use testkit::Role;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::world::{World, wait};

/// An organization among others, with enough rows that the planner would rather use an index.
async fn crowded(world: &World) -> Client {
    let fill = format!(
        "insert into templates (org_id, id, name, description, category, cloud_provider, canvas, canvas_hash)
        select orgs.id, gen_random_uuid(), 'template ' || n, 'word' || n, 'category ' || n % 50,
            (array['aws', 'azure', 'gcp', 'builtin'])[1 + n % 4]::designs.cloud_provider, '{{}}', sha256('{{}}')
        from (select '{org}'::uuid union all select gen_random_uuid() from generate_series(1, 9)) as orgs (id), generate_series(1, 2000) n;
        insert into designs (org_id, id, name, description, cloud_provider, status, canvas, canvas_hash, creator_kind, creator_id, updated_at)
        select org_id, gen_random_uuid(), 'd', '', 'aws',
            (case when n % 100 = 0 then 'archived' when n % 50 = 1 then 'published' else 'draft' end)::designs.design_status,
            '{{}}', sha256('{{}}'), 'user', ('00000000-0000-7000-8000-' || lpad((n % 50)::text, 12, '0'))::uuid,
            timestamptz '2026-01-01' + n * interval '1 minute'
        from (select distinct org_id from templates where org_id <> '{platform}') orgs, generate_series(1, 3000) n;
        insert into design_versions (org_id, design_id, number, message, canvas, canvas_hash, author_kind, author_id)
        select org_id, id, n, '', '{{}}', sha256('{{}}'), 'user', gen_random_uuid()
        from (select org_id, id from designs limit 200) d, generate_series(1, 20) n;
        insert into resources (org_id, id, design_id, node_id, resource_type, name)
        select org_id, gen_random_uuid(), id, 'n' || n, 't', 'n' || n
        from (select org_id, id from designs limit 200) d, generate_series(1, 20) n;
        insert into resource_drifts (org_id, state_id, address, design_id, state_name, kind, check_id, detected_at)
        select org_id, gen_random_uuid(), 't.n' || n, id, 's', 'changed', gen_random_uuid(), now()
        from (select org_id, id from designs limit 200) d, generate_series(1, 20) n;
        analyze",
        org = world.org,
        platform = OrgId::PLATFORM,
    );
    world.admin.batch_execute(&fill).await.unwrap();
    let app = world.served.database.client(designs::SERVICE.slice, Role::App).await;
    app.batch_execute(&format!("set app.org = '{}'", world.org))
        .await
        .unwrap();
    app
}

async fn plan(client: &Client, query: &str) -> String {
    let rows = client
        .query(&format!("explain (costs off) {query}"), &[])
        .await
        .unwrap();
    rows.iter()
        .map(|row| row.get::<_, String>(0))
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn every_list_is_planned_on_its_index() {
    let world = World::new().await;
    let app = crowded(&world).await;
    let org = world.org;
    let designs = |condition: &str| {
        format!(
            "select id, name from designs where org_id = '{org}' and deleted_at is null {condition}
            and updated_at <= '2026-01-02' and (updated_at < '2026-01-02' or id < '{}')
            order by updated_at desc, id desc limit 51",
            Uuid::nil()
        )
    };
    let templates = |condition: &str| {
        format!(
            "select id, name from templates where org_id = any(array['{org}', '{}']::uuid[]) {condition}
            order by name, id limit 51",
            OrgId::PLATFORM
        )
    };
    let of_design = |table: &str, condition: &str| {
        format!(
            "select * from {table} where org_id = '{org}' and design_id = '{}' {condition} limit 51",
            Uuid::nil()
        )
    };
    let expected = [
        (designs(""), "designs_updated_at_idx"),
        (
            designs("and creator_id = '00000000-0000-7000-8000-000000000007'"),
            "designs_creator_idx",
        ),
        (designs("and designs.status = 'draft'"), "designs_draft_idx"),
        (designs("and designs.status = 'published'"), "designs_published_idx"),
        (designs("and designs.status = 'archived'"), "designs_archived_idx"),
        (templates("and category = 'category 7'"), "templates_category_idx"),
        (templates("and templates.cloud_provider = 'aws'"), "templates_aws_idx"),
        (
            templates("and templates.cloud_provider = 'azure'"),
            "templates_azure_idx",
        ),
        (templates("and templates.cloud_provider = 'gcp'"), "templates_gcp_idx"),
        (
            templates("and templates.cloud_provider = 'builtin'"),
            "templates_builtin_idx",
        ),
        (
            of_design("design_versions", "and number < 9 order by number desc"),
            "design_versions_pkey",
        ),
        (
            of_design("resources", "and node_id > 'n3' order by node_id"),
            "resources_node_key",
        ),
        (
            of_design(
                "resource_drifts",
                "and address = any(array['t.n1', 't.n2']) order by state_name, state_id",
            ),
            "resource_drifts_design_idx",
        ),
        (
            format!(
                "select * from resource_drifts where org_id = '{org}' and state_id = '{}'",
                Uuid::nil()
            ),
            "resource_drifts_pkey",
        ),
    ];
    for (query, index) in expected {
        let plan = plan(&app, &query).await;
        assert!(plan.contains(index), "{query} does not use {index}:\n{plan}");
        assert!(!plan.contains("Seq Scan"), "{query}:\n{plan}");
    }
    // An enum's operator is not leakproof, so as an ordinary column it would not get into an index condition.
    world.admin.batch_execute("drop index designs_archived_idx; create index by_status on designs (org_id, status, updated_at desc, id desc)").await.unwrap();
    let plain = plan(&app, &designs("and designs.status = 'archived'")).await;
    assert!(
        !plain
            .lines()
            .any(|line| line.contains("Index Cond") && line.contains("status")),
        "{plain}"
    );
}

#[tokio::test]
async fn what_the_service_asks_runs_on_the_indexes() {
    let world = World::new().await;
    crowded(&world).await;
    let row =
        "select id::text from designs join design_versions v on v.design_id = id and v.org_id = designs.org_id limit 1";
    let design_id: String = world.admin.query_one(row, &[]).await.unwrap().get(0);
    let owner = format!("select org_id::text from designs where id = '{design_id}'");
    let owner: String = world.admin.query_one(&owner, &[]).await.unwrap().get(0);
    world.admin.batch_execute("select pg_stat_reset()").await.unwrap();
    let ada = world.designer();
    let owner = world.designer_of(owner.parse().unwrap(), ada.id);
    let calls = async || {
        let (mut designs, mut templates, mut theirs) =
            (ada.designs.clone(), ada.templates.clone(), owner.designs.clone());
        for status in 0..4 {
            let request = ListDesignsRequest {
                status,
                ..Default::default()
            };
            designs.list_designs(request).await.unwrap();
        }
        let creator_id = "00000000-0000-7000-8000-000000000007".to_owned();
        let request = ListDesignsRequest {
            creator_id,
            ..Default::default()
        };
        designs.list_designs(request).await.unwrap();
        for cloud_provider in 1..5 {
            let request = ListTemplatesRequest {
                cloud_provider,
                ..Default::default()
            };
            templates.list_templates(request).await.unwrap();
        }
        let request = ListTemplatesRequest {
            category: "category 7".to_owned(),
            ..Default::default()
        };
        templates.list_templates(request).await.unwrap();
        let request = ListVersionsRequest {
            design_id: design_id.clone(),
            ..Default::default()
        };
        theirs.list_versions(request).await.unwrap();
        let request = ListResourcesRequest {
            design_id: design_id.clone(),
            ..Default::default()
        };
        theirs.list_resources(request).await.unwrap();
    };
    let unused = "select count(*) from unnest(array[
            'designs_updated_at_idx', 'designs_creator_idx', 'designs_draft_idx', 'designs_published_idx',
            'designs_archived_idx', 'templates_category_idx', 'templates_aws_idx', 'templates_azure_idx',
            'templates_gcp_idx', 'templates_builtin_idx', 'design_versions_pkey', 'resources_node_key',
            'resource_drifts_design_idx'
        ]) as wanted (name)
        where not exists (select from pg_stat_user_indexes where indexrelname = name and idx_scan > 0)";
    // A connection tells its figures at most once a second.
    wait("every index to be scanned", async || {
        calls().await;
        world.number(unused).await == 0
    })
    .await;
}

#[tokio::test]
async fn search_is_planned_on_its_index_for_the_owner_alone() {
    let world = World::new().await;
    let app = crowded(&world).await;
    let search = "select id from templates where search @@ websearch_to_tsquery('simple'::regconfig, 'word77')";
    let owner = world
        .served
        .database
        .client(designs::SERVICE.slice, Role::Migrate)
        .await;
    owner
        .batch_execute("set role board3_designs_owner; set search_path = designs")
        .await
        .unwrap();
    let served = plan(&owner, search).await;
    assert!(served.contains("templates_search_idx"), "{served}");
    // This is why there is a definer's function.
    let unserved = plan(&app, search).await;
    assert!(!unserved.contains("templates_search_idx"), "{unserved}");
}
