create type drift_run_outcome as enum (
  'requested', 'running', 'succeeded', 'failed', 'cancelled', 'state_locked', 'state_busy', 'over_cap', 'late',
  'state_deleted', 'refused', 'unanswered'
);

-- When states are checked for drift. Who asks for a run holds the schedule's row.
create table drift_schedules (
  org_id uuid not null,
  id uuid not null,
  state_id uuid not null,
  pipeline_id uuid not null,
  cron text not null constraint drift_schedules_cron_length check (char_length(cron) between 1 and 200),
  time_zone text not null constraint drift_schedules_time_zone_length check (char_length(time_zone) between 1 and 64),
  window_seconds integer not null
    constraint drift_schedules_window_bounded check (window_seconds between 60 and 86400),
  jitter_seconds integer not null constraint drift_schedules_jitter_bounded check (jitter_seconds between 0 and 3600),
  paused boolean not null,
  -- The next time by the cron expression, that with the jitter, and from when on it is too late.
  due_at timestamptz,
  run_at timestamptz,
  run_before timestamptz,
  last_run_id uuid,
  author_kind principal_kind not null,
  author_id uuid not null,
  revision bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint drift_schedules_pkey primary key (org_id, id),
  constraint drift_schedules_state_fkey foreign key (org_id, state_id) references states (org_id, id),
  constraint drift_schedules_next_whole
    check ((due_at is null) = (run_at is null) and (run_at is null) = (run_before is null)),
  constraint drift_schedules_next_ordered check (due_at <= run_at and run_at < run_before),
  constraint drift_schedules_paused_idle check (not paused or run_at is null)
);
create index drift_schedules_state_idx on drift_schedules (org_id, state_id, id desc);
-- The due ones of an organization, those that are late soonest first.
create index drift_schedules_before_idx on drift_schedules (org_id, run_before, id) where run_at is not null;
create index drift_schedules_run_idx on drift_schedules (run_at, org_id) where run_at is not null;
select board3.tenant_table('drift_schedules', true);

-- What became of each due time: one row, however many replicas looked at it.
create table drift_runs (
  org_id uuid not null,
  id uuid not null,
  schedule_id uuid not null,
  state_id uuid not null,
  due_at timestamptz not null,
  -- From when on it is too late to begin.
  run_before timestamptz not null,
  outcome drift_run_outcome not null,
  reason text not null default '' constraint drift_runs_reason_length check (char_length(reason) <= 100),
  execution_id uuid,
  changed_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  constraint drift_runs_pkey primary key (org_id, id),
  constraint drift_runs_due_key unique (org_id, schedule_id, due_at),
  constraint drift_runs_schedule_fkey
    foreign key (org_id, schedule_id) references drift_schedules (org_id, id) on delete cascade,
  constraint drift_runs_finished check ((outcome in ('requested', 'running')) = (finished_at is null))
);
create index drift_runs_live_idx on drift_runs (org_id, state_id) where finished_at is null;
create unique index drift_runs_execution_key on drift_runs (org_id, execution_id) where execution_id is not null;
select board3.tenant_table('drift_runs', true);

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
begin
  execute format('revoke insert, delete on drift_schedules from %s', worker);
  execute format('revoke insert, update, delete on drift_runs from %s', app);
end
$$;

-- Organizations with a schedule that is due, after one of them.
create function due_drift_schedules(after uuid, most integer) returns table (org_id uuid)
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select distinct s.org_id from drift_schedules s
  where s.run_at <= clock_timestamp() and s.org_id > after
  order by s.org_id limit most
$$;

grant execute on function due_drift_schedules(uuid, integer) to board3_terraform_state_worker;
