-- What drift holds sealed is rotated as data keys are: each value says by which key of the ring it is sealed.
alter table drift_logs
  add column before_key_id bytea generated always as (substring(before from 2 for 4)) stored,
  add column after_key_id bytea generated always as (substring(after from 2 for 4)) stored;
alter table drift_views add column key_id bytea generated always as (substring(sealed from 2 for 4)) stored;
create index drift_logs_key_idx on drift_logs (org_id, before_key_id, after_key_id);
create index drift_views_key_idx on drift_views (org_id, key_id);

create type rotation_stage as enum ('versions', 'drift_logs', 'drift_views');
-- `after_state` and `after_number` are, in the stage of drift logs, a log's id and nothing; of drift views, a state and a place.
alter table key_rotations
  add column stage rotation_stage not null default 'versions',
  add column done_values bigint not null default 0 constraint key_rotations_done_values_natural check (done_values >= 0),
  add column failed_values bigint not null default 0
    constraint key_rotations_failed_values_natural check (failed_values >= 0);

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
begin
  execute format('alter policy tenant on drift_logs to %s, %s', app, worker);
  execute format('alter policy tenant on drift_views to %s, %s', app, worker);
  execute format('grant select, update (before, after) on drift_logs to %s', worker);
  execute format('grant select, update (sealed) on drift_views to %s', worker);
  -- A fingerprint is a keyed hash: who sees the finding again knows it by the primary key from then on.
  execute format('grant update (fingerprint) on drift_logs to %s', app);
end
$$;

-- The first organization from this one on with something that is sealed by another key.
create or replace function next_sealed_otherwise(wanted bytea, from_org uuid) returns uuid
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select org_id from (
    (select v.org_id from state_versions v
      where v.org_id >= from_org and v.key_id is distinct from wanted order by v.org_id limit 1)
    union all
    (select l.org_id from drift_logs l
      where l.org_id >= from_org and (l.before_key_id <> wanted or l.after_key_id <> wanted) order by l.org_id limit 1)
    union all
    (select w.org_id from drift_views w where w.org_id >= from_org and w.key_id <> wanted order by w.org_id limit 1)
  ) found order by org_id limit 1
$$;

-- How many versions and values of drift of all organizations each key seals; null for contents that have no data key.
drop function versions_by_key();
create function sealed_by_key() returns table (key_id bytea, versions bigint, drift_values bigint)
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select s.key_id, sum(s.versions)::bigint, sum(s.drift_values)::bigint from (
    select v.key_id, count(*) as versions, 0 as drift_values from state_versions v group by v.key_id
    union all
    select l.before_key_id, 0, count(*) from drift_logs l where l.before is not null group by l.before_key_id
    union all
    select l.after_key_id, 0, count(*) from drift_logs l where l.after is not null group by l.after_key_id
    union all
    select w.key_id, 0, count(*) from drift_views w where w.sealed is not null group by w.key_id
  ) s group by s.key_id
$$;
grant execute on function sealed_by_key() to board3_terraform_state_worker;
