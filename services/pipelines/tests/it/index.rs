//! Lists and the queue are served by their indexes, under row-level security and in the app's role.

use api::pipelines::v1::{GetExecutionRequest, ListExecutionsRequest, ListPipelinesRequest, ListStagesRequest};
use testkit::Role;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::world::{World, drifted};

/// An organization among others, with enough rows that the planner would rather use an index.
async fn crowded(world: &World) -> Client {
    let fill = format!(
        "insert into pipelines (org_id, id, name, design_id, state_name, stages, on_drift, creator_kind, creator_id)
        select orgs.id, gen_random_uuid(), 'pipeline ' || n, ('00000000-0000-7000-8000-' || lpad((n % 50)::text, 12, '0'))::uuid,
            'state ' || n % 20, '{stages}', n % 10 = 0, 'user', gen_random_uuid()
        from (select '{org}'::uuid union all select gen_random_uuid() from generate_series(1, 9)) as orgs (id), generate_series(1, 1000) n;
        insert into pipeline_executions (org_id, id, pipeline_id, design_id, design_version, state_name, trigger,
            starter_kind, starter_id, status, created_at, finished_at)
        select p.org_id, gen_random_uuid(), p.id, p.design_id, 1, 's', 'manual', 'user', gen_random_uuid(), s.status,
            timestamptz '2026-01-01' + n * interval '1 minute',
            case when s.status in ('succeeded', 'failed', 'cancelled', 'outcome_unknown') then now() end
        from (select org_id, id, design_id from pipelines where name like 'pipeline 1_' or name like 'pipeline 2_') p,
            generate_series(1, 150) n,
            lateral (select (case when n % 50 = 0 then 'queued' when n % 50 = 1 then 'running' when n % 50 = 2 then 'cancelling'
                when n % 50 = 3 then 'failed' when n % 50 = 4 then 'cancelled' when n % 50 = 5 then 'outcome_unknown'
                else 'succeeded' end)::pipelines.execution_status as status) s;
        insert into pipeline_stages (org_id, id, execution_id, position, name, kind, needs, status, attempts, created_at, finished_at)
        select org_id, gen_random_uuid(), id, 0, 'plan', 'plan', '{{}}', r.status, 1, created_at,
            case when r.status = 'succeeded' then now() end
        from (select *, row_number() over () as n from pipeline_executions) e,
            lateral (select (case when n % 100 = 0 then 'ready' else 'succeeded' end)::pipelines.stage_status as status) r;
        insert into runners (org_id, id, name, terraform_version, principal_kind, principal_id)
        select distinct org_id, org_id, 'r', '', 'user'::pipelines.principal_kind, org_id from pipelines;
        insert into stage_attempts (org_id, id, stage_id, number, runner_id, principal_kind, principal_id, status, expires_at, fence_at, finished_at, credential_hash)
        select org_id, gen_random_uuid(), id, 1, org_id, 'user', org_id, (case when n % 200 = 0 then 'running' else 'succeeded' end)::pipelines.attempt_status,
            now(), now() + interval '1 hour', case when n % 200 <> 0 then now() end, sha256(n::text::bytea)
        from (select *, row_number() over () as n from pipeline_stages) s;
        analyze",
        org = world.org,
        stages = r#"[{"name": "plan", "kind": "plan", "needs": []}]"#,
    );
    world.admin.batch_execute(&fill).await.unwrap();
    let app = world.served.database.client(pipelines::SERVICE.slice, Role::App).await;
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
async fn every_list_and_the_queue_are_planned_on_their_indexes() {
    let world = World::new().await;
    let app = crowded(&world).await;
    let (org, nil) = (world.org, Uuid::nil());
    let pipelines = |condition: &str| {
        format!(
            "select id, name from pipelines where org_id = '{org}' {condition} and name > 'pipeline 3' order by name limit 51"
        )
    };
    let executions = |condition: &str| {
        format!(
            "select id from pipeline_executions where org_id = '{org}' {condition}
            and created_at <= '2026-01-02' and (created_at < '2026-01-02' or id < '{nil}')
            order by created_at desc, id desc limit 51"
        )
    };
    let one = "select id::text from pipelines where name = 'pipeline 12' limit 1";
    let pipeline: String = app.query_one(one, &[]).await.unwrap().get(0);
    let design = "00000000-0000-7000-8000-000000000007";
    let mut expected = vec![
        (pipelines(""), "pipelines_name_key".to_owned()),
        (
            pipelines(&format!("and design_id = '{design}'")),
            "pipelines_design_idx".to_owned(),
        ),
        (
            format!(
                "select * from pipelines where org_id = '{org}' and design_id = '{design}' and state_name = 'state 7' and on_drift"
            ),
            "pipelines_drift_idx".to_owned(),
        ),
        (executions(""), "pipeline_executions_created_at_idx".to_owned()),
        (
            executions(&format!("and pipeline_id = '{pipeline}'")),
            "pipeline_executions_pipeline_idx".to_owned(),
        ),
        (
            format!(
                "select * from pipeline_stages where org_id = '{org}' and execution_id = '{nil}' and position > 0 order by position limit 51"
            ),
            "pipeline_stages_position_key".to_owned(),
        ),
        (
            format!(
                "select * from pipeline_stages where org_id = '{org}' and pipeline_stages.status = 'ready' order by created_at, id limit 1"
            ),
            "pipeline_stages_ready_idx".to_owned(),
        ),
        (
            format!(
                "select * from stage_attempts where org_id = '{org}' and stage_id = any(array['{nil}']::uuid[]) order by stage_id, number"
            ),
            "stage_attempts_number_key".to_owned(),
        ),
    ];
    for status in [
        "queued",
        "running",
        "cancelling",
        "succeeded",
        "failed",
        "cancelled",
        "outcome_unknown",
    ] {
        expected.push((
            executions(&format!("and pipeline_executions.status = '{status}'")),
            format!("pipeline_executions_{status}_idx"),
        ));
    }
    for (query, index) in expected {
        let plan = plan(&app, &query).await;
        assert!(plan.contains(&index), "{query} does not use {index}:\n{plan}");
        assert!(!plan.contains("Seq Scan"), "{query}:\n{plan}");
    }
}

#[tokio::test]
async fn what_is_asked_before_the_organization_is_known_runs_on_its_index() {
    let world = World::new().await;
    crowded(&world).await;
    // As the functions' owner, whom no policy filters.
    let owner = &world.admin;
    let credential =
        "select org_id, id from stage_attempts where credential_hash = sha256('7') and status in ('leased', 'running')";
    let expired = "select org_id, id from stage_attempts where status in ('leased', 'running')
        and fence_at <= clock_timestamp()
        and (fence_at, id) > ('-infinity'::timestamptz, '00000000-0000-0000-0000-000000000000'::uuid)
        order by fence_at, id limit 50";
    for (query, index) in [
        (credential, "stage_attempts_credential_key"),
        (expired, "stage_attempts_fence_idx"),
    ] {
        let plan = plan(owner, query).await;
        assert!(plan.contains(index), "{query} does not use {index}:\n{plan}");
    }
}

#[tokio::test]
async fn what_the_service_asks_runs_on_the_indexes() {
    let world = World::new().await;
    crowded(&world).await;
    let row = format!(
        "select id::text, pipeline_id::text from pipeline_executions where org_id = '{}' limit 1",
        world.org
    );
    let row = world.admin.query_one(&row, &[]).await.unwrap();
    let (execution_id, pipeline_id): (String, String) = (row.get(0), row.get(1));
    world.admin.batch_execute("select pg_stat_reset()").await.unwrap();
    let mut ada = world.operator();
    let runner = ada.register("r1").await;
    let drifted = drifted("00000000-0000-7000-8000-000000000007".parse().unwrap(), 1);
    let calls = async || {
        let (mut pipelines, mut runners) = (ada.pipelines.clone(), ada.clone());
        for status in 0..=7 {
            let request = ListExecutionsRequest {
                status,
                ..Default::default()
            };
            pipelines.list_executions(request).await.unwrap();
        }
        let request = ListExecutionsRequest {
            pipeline_id: pipeline_id.clone(),
            ..Default::default()
        };
        pipelines.list_executions(request).await.unwrap();
        pipelines.list_pipelines(ListPipelinesRequest::default()).await.unwrap();
        let request = ListPipelinesRequest {
            design_id: drifted.design_id.clone(),
            ..Default::default()
        };
        pipelines.list_pipelines(request).await.unwrap();
        let request = GetExecutionRequest {
            execution_id: execution_id.clone(),
        };
        pipelines.get_execution(request).await.unwrap();
        let request = ListStagesRequest {
            execution_id: execution_id.clone(),
            ..Default::default()
        };
        pipelines.list_stages(request).await.unwrap();
        runners.acquire(&runner).await;
        world.tell_drift(world.org, drifted.clone(), 0);
    };
    let unused = "select coalesce(string_agg(name, ', '), '') from unnest(array[
            'pipelines_name_key', 'pipelines_design_idx', 'pipelines_drift_idx', 'pipeline_executions_created_at_idx',
            'pipeline_executions_pipeline_idx', 'pipeline_executions_queued_idx', 'pipeline_executions_running_idx',
            'pipeline_executions_cancelling_idx', 'pipeline_executions_succeeded_idx', 'pipeline_executions_failed_idx',
            'pipeline_executions_cancelled_idx', 'pipeline_executions_outcome_unknown_idx',
            'pipeline_stages_position_key', 'pipeline_stages_ready_idx', 'stage_attempts_number_key',
            'stage_attempts_fence_idx'
        ]) as wanted (name)
        where not exists (select from pg_stat_user_indexes where indexrelname = name and idx_scan > 0)";
    // A connection tells its figures at most once a second.
    let mut left = String::new();
    for _ in 0..40 {
        calls().await;
        left = world.admin.query_one(unused, &[]).await.unwrap().get(0);
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no call scans {left}");
}
