do $$
begin
  if exists (select from state_versions where data_key is not null) then
    raise exception 'contents under data keys cannot be read by what was before';
  end if;
end
$$;

drop function due_compactions(integer);
drop function running_rotations(bytea);
drop function next_sealed_otherwise(bytea, uuid);
drop function versions_by_key();
drop table key_rotations, executions, compactions, organization_limits;

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
  t text;
begin
  foreach t in array array['states', 'state_locks', 'state_versions', 'state_chunks'] loop
    execute format('alter policy tenant on %I to %s', t, app);
    execute format('revoke all on %I from %s', t, worker);
  end loop;
  execute format('revoke update (kind) on state_versions from %s', app);
end
$$;

alter table state_versions
  drop column stored_bytes, drop column weighed_number, drop column base_number, drop column key_id, drop column data_key,
  drop column body_id, drop column lock_id;
alter table states
  drop constraint states_retention_whole,
  drop column stored_bytes, drop column keep_weeks, drop column keep_days, drop column keep_versions;

alter type state_version_kind rename to state_version_kind_after;
create type state_version_kind as enum ('normal', 'forced');
alter table state_versions alter column kind type state_version_kind
  using (case kind::text when 'forced' then 'forced' else 'normal' end)::state_version_kind;
drop type state_version_kind_after;
