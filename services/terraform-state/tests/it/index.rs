//! Lists and lookups are served by their indexes, under row-level security and in the app's role.

use testkit::Role;
use uuid::Uuid;

use crate::world::World;

#[tokio::test]
async fn every_list_is_planned_on_its_index() {
    let world = World::new().await;
    let org = world.org;
    let fill = format!(
        "insert into states (org_id, id, name, design_id, latest_version)
        select orgs.id, gen_random_uuid(), 'state-' || n,
            ('00000000-0000-7000-8000-' || lpad((n % 50)::text, 12, '0'))::uuid, 1
        from (select '{org}'::uuid union all select gen_random_uuid() from generate_series(1, 9)) as orgs (id),
            generate_series(1, 2000) n;
        insert into state_versions (org_id, state_id, number, id, serial, lineage, kind, size_bytes, chunks, content_hash,
            terraform_version, resource_count, blank, author_kind, author_id)
        select org_id, id, n, gen_random_uuid(), n, 'l', 'normal', 1, 1, sha256(''), '', 0, false, 'user', id
        from (select * from states limit 1000) s, generate_series(1, 20) n;
        insert into state_chunks (org_id, version_id, place, sealed)
        select org_id, id, 0, 'x' from state_versions;
        insert into state_locks (org_id, state_id, lock_id, operation, who, info, terraform_version, holder_kind, holder_id,
            created_at)
        select org_id, id, 'lock', '', '', '', '', 'job', gen_random_uuid(), now() - n * interval '1 s'
        from (select *, row_number() over () as n from states) s;
        insert into lock_history (org_id, id, state_id, lock_id, operation, who, info, terraform_version, holder_kind,
            holder_id, created_at, last_seen_at, maintenance_reason, ending, ended_by_kind, ended_by_id, ended_reason)
        select org_id, gen_random_uuid(), id, 'lock', '', '', '', '', 'user', id, now(), now(), '', 'released', 'user', id, ''
        from (select * from states limit 5000) s, generate_series(1, 5);
        insert into lock_jobs select org_id, gen_random_uuid(), now() from states;
        update state_versions set base_number = number + 1 where number % 7 = 1;
        insert into executions (org_id, execution_id, state_name, live, revision) select org_id, id, name, true, 1 from states;
        insert into compactions (org_id, state_id, due_at) select org_id, id, now() + interval '1 s' * latest_version from states;
        insert into state_resources (org_id, state_id, address, type, provider, module, instances)
        select org_id, id, 'r.' || n, 'type-' || n % 50, 'provider-' || n % 50, 'module.' || n % 50, 1
        from (select * from states limit 1000) s, generate_series(1, 20) n;
        insert into drift_schedules (org_id, id, state_id, pipeline_id, cron, time_zone, window_seconds, jitter_seconds,
            paused, due_at, run_at, run_before, author_kind, author_id, created_at, updated_at)
        select org_id, gen_random_uuid(), id, id, '* * * * *', 'UTC', 60, 0, false, now(), now(), now() + n * interval '1 s',
            'user', id, now(), now()
        from (select *, row_number() over () as n from states) s;
        insert into drift_runs (org_id, id, schedule_id, state_id, due_at, run_before, outcome, execution_id, finished_at)
        select org_id, gen_random_uuid(), id, state_id, now(), now(), case when n % 99 = 0 then 'running' else 'failed' end::
            drift_run_outcome, gen_random_uuid(), case when n % 99 > 0 then now() end
        from (select *, row_number() over () as n from drift_schedules) s;
        update states set deleted_at = now() where name like 'state-77%';
        analyze"
    );
    world.admin.batch_execute(&fill).await.unwrap();
    let app = world
        .served
        .database
        .client(terraform_state::SERVICE.slice, Role::App)
        .await;
    app.batch_execute(&format!("set app.org = '{org}'")).await.unwrap();
    let (none, last) = (Uuid::nil(), Uuid::max());
    for (query, index) in [
        (
            format!(
                "select * from drift_schedules where org_id = '{org}' and state_id = '{none}' order by id desc limit 51"
            ),
            "drift_schedules_state_idx",
        ),
        (
            format!(
                "select * from drift_schedules where org_id = '{org}' and run_at <= clock_timestamp()
                 order by run_before, id limit 1 for update skip locked"
            ),
            "drift_schedules_before_idx",
        ),
        (
            format!("select count(*) from drift_runs where org_id = '{org}' and finished_at is null"),
            "drift_runs_live_idx",
        ),
        (
            format!(
                "select * from drift_runs where org_id = '{org}' and execution_id = '{none}' and finished_at is null"
            ),
            "drift_runs_",
        ),
        (
            format!("select * from states where org_id = '{org}' and name = 'state-7'"),
            "states_name_key",
        ),
        (
            format!("select * from states where org_id = '{org}' and name > 'state-3' order by name limit 51"),
            "states_name_key",
        ),
        (
            format!(
                "select * from states where org_id = '{org}' and name >= 'state-19' and name < E'state-19\\x7f' order by name limit 51"
            ),
            "states_name_key",
        ),
        (
            format!(
                "select * from states where org_id = '{org}' and design_id = '00000000-0000-7000-8000-000000000007' order by name limit 51"
            ),
            "states_design_idx",
        ),
        (
            format!(
                "select * from state_versions where org_id = '{org}' and state_id = '{none}' and number < 9 order by number desc limit 51"
            ),
            "state_versions_pkey",
        ),
        (
            format!(
                "select * from state_versions where org_id = '{org}' and state_id = '{none}' and number > 3 and number <= 32 order by number"
            ),
            "state_versions_pkey",
        ),
        (
            format!("select * from state_versions where org_id = '{org}' and state_id = '{none}' and base_number = 2"),
            "state_versions_base_idx",
        ),
        (
            format!("select * from executions where org_id = '{org}' and state_name = 'state-7' and live"),
            "executions_live_idx",
        ),
        (
            format!("select * from compactions where org_id = '{org}' and state_id = '{none}'"),
            "compactions_pkey",
        ),
        (
            format!("select * from states where org_id = '{org}' and deleted_at is not null order by name limit 51"),
            "states_deleted_idx",
        ),
        (
            format!("select * from state_locks where org_id = '{org}' and last_seen_at < now() - interval '1 day'"),
            "state_locks_seen_idx",
        ),
        (
            format!(
                "select * from state_resources where org_id = '{org}' and state_id = '{none}' order by address limit 51"
            ),
            "state_resources_pkey",
        ),
        (
            format!(
                "select * from state_resources where org_id = '{org}' and address >= 'r.7' and (address > 'r.7' or state_id > '{none}') order by address, state_id limit 51"
            ),
            "state_resources_address_idx",
        ),
        (
            format!(
                "select * from state_resources where org_id = '{org}' and type = 'type-7' order by address, state_id limit 51"
            ),
            "state_resources_type_idx",
        ),
        (
            format!(
                "select * from state_resources where org_id = '{org}' and provider = 'provider-7' order by address, state_id limit 51"
            ),
            "state_resources_provider_idx",
        ),
        (
            format!(
                "select * from state_resources where org_id = '{org}' and module = 'module.7' order by address, state_id limit 51"
            ),
            "state_resources_module_idx",
        ),
        (
            format!("select * from state_chunks where org_id = '{org}' and version_id = '{none}' and place = 0"),
            "state_chunks_pkey",
        ),
        (
            format!(
                "select * from state_locks l join states s on s.org_id = l.org_id and s.id = l.state_id
                where l.org_id = '{org}' and l.created_at >= now() and (l.created_at > now() or l.state_id > '{none}')
                order by l.created_at, l.state_id limit 51"
            ),
            "state_locks_created_idx",
        ),
        (
            format!(
                "select * from state_locks where org_id = '{org}' and holder_id = '{none}' and holder_kind = 'job'"
            ),
            "state_locks_holder_idx",
        ),
        (
            format!("select * from lock_history where org_id = '{org}' and id < '{none}' order by id desc limit 51"),
            "lock_history_pkey",
        ),
        (
            format!(
                "select * from lock_history where org_id = '{org}' and state_id = '{none}' and id < '{last}' order by id desc limit 51"
            ),
            "lock_history_state_idx",
        ),
        (
            format!("select * from lock_jobs where org_id = '{org}' and ended_at < now() - interval '2 days'"),
            "lock_jobs_ended_idx",
        ),
    ] {
        let rows = app.query(&format!("explain (costs off) {query}"), &[]).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{query}:\n{plan}");
    }
}
