drop function sealed_by_key();
create function versions_by_key() returns table (key_id bytea, versions bigint)
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select v.key_id, count(*) from state_versions v group by v.key_id
$$;
grant execute on function versions_by_key() to board3_terraform_state_worker;
create or replace function next_sealed_otherwise(wanted bytea, from_org uuid) returns uuid
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select v.org_id from state_versions v
  where v.org_id >= from_org and v.key_id is distinct from wanted order by v.org_id limit 1
$$;

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
begin
  execute format('revoke update (fingerprint) on drift_logs from %s', app);
  execute format('revoke select, update (before, after) on drift_logs from %s', worker);
  execute format('revoke select, update (sealed) on drift_views from %s', worker);
  execute format('alter policy tenant on drift_logs to %s', app);
  execute format('alter policy tenant on drift_views to %s', app);
end
$$;

-- A rotation that goes on without stages has sealed the versions that it is past.
alter table key_rotations drop column stage, drop column done_values, drop column failed_values;
drop type rotation_stage;
alter table drift_views drop column key_id;
alter table drift_logs drop column before_key_id, drop column after_key_id;
