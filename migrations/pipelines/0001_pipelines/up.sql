-- Pipelines, their executions and stages, the attempts that runners make at them, and the logs of those.
--
-- PostgreSQL is the queue: a stage is ready, leased or done here and nowhere else. Whoever changes a stage or an attempt
-- holds the row of its execution first; one order everywhere, so nobody waits in a circle and no fan-in reads stale rows.
-- Comparisons of enums are not leakproof, so under row-level security no index condition holds one: lists by status have
-- a partial index for each value (see the designs slice).

create type principal_kind as enum ('user', 'api_key');
create type stage_kind as enum ('validate', 'plan', 'apply');
create type execution_trigger as enum ('manual', 'drift');
create type execution_status as enum
  ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled', 'outcome_unknown');
create type stage_status as enum
  ('blocked', 'ready', 'leased', 'running', 'succeeded', 'failed', 'skipped', 'cancelled', 'outcome_unknown');
create type attempt_status as enum
  ('leased', 'running', 'succeeded', 'failed', 'cancelled', 'outcome_unknown', 'lost');
create type failure_reason as enum
  ('tool_missing', 'terraform_failed', 'export_failed', 'lease_expired', 'cancelled', 'artifact_too_large', 'runner_failed');

-- Designs as their service last told them; an older revision than the one here is ignored.
create table designs (
  org_id uuid not null,
  design_id uuid not null,
  name text not null,
  -- 0 for none.
  latest_version integer not null constraint designs_latest_version_natural check (latest_version >= 0),
  deleted boolean not null,
  revision bigint not null,
  updated_at timestamptz not null default clock_timestamp(),
  constraint designs_pkey primary key (org_id, design_id)
);
select board3.tenant_table('designs', true);

create table pipelines (
  org_id uuid not null,
  id uuid not null,
  name text not null constraint pipelines_name_length check (char_length(name) between 1 and 200),
  design_id uuid not null,
  state_name text not null constraint pipelines_state_name_length check (char_length(state_name) between 1 and 200),
  -- [{"name", "kind", "needs"}], in the order that people see.
  stages jsonb not null
    constraint pipelines_stages_count check (jsonb_typeof(stages) = 'array' and jsonb_array_length(stages) between 1 and 20),
  -- Whether drift of its state starts it; RunPipeline always does.
  on_drift boolean not null,
  creator_kind principal_kind not null,
  creator_id uuid not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint pipelines_pkey primary key (org_id, id),
  constraint pipelines_name_key unique (org_id, name)
);
create index pipelines_design_idx on pipelines (org_id, design_id, name);
create index pipelines_drift_idx on pipelines (org_id, design_id, state_name) where on_drift;
select board3.tenant_table('pipelines', true);

create table pipeline_executions (
  org_id uuid not null,
  id uuid not null,
  pipeline_id uuid not null,
  -- As the pipeline had them when it was run.
  design_id uuid not null,
  design_version integer not null constraint pipeline_executions_design_version_positive check (design_version > 0),
  state_name text not null,
  trigger execution_trigger not null,
  starter_kind principal_kind,
  starter_id uuid,
  cause_event_id uuid,
  -- How many events stand between its own events and a caller.
  chain_depth integer not null default 0
    constraint pipeline_executions_chain_depth_bounded check (chain_depth between 0 and 4),
  status execution_status not null default 'queued',
  status_detail text not null default ''
    constraint pipeline_executions_status_detail_length check (char_length(status_detail) <= 2000),
  -- Grows by one with each change.
  revision bigint not null default 1 constraint pipeline_executions_revision_positive check (revision > 0),
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  constraint pipeline_executions_pkey primary key (org_id, id),
  constraint pipeline_executions_pipeline_fkey foreign key (org_id, pipeline_id) references pipelines (org_id, id),
  constraint pipeline_executions_starter_whole check ((starter_kind is null) = (starter_id is null)),
  constraint pipeline_executions_origin check (
    case trigger
      when 'manual' then starter_id is not null and cause_event_id is null
      when 'drift' then starter_id is null and cause_event_id is not null
    end),
  constraint pipeline_executions_finished
    check ((status in ('succeeded', 'failed', 'cancelled', 'outcome_unknown')) = (finished_at is not null))
);
create index pipeline_executions_created_at_idx on pipeline_executions (org_id, created_at desc, id desc);
create index pipeline_executions_pipeline_idx on pipeline_executions (org_id, pipeline_id, created_at desc, id desc);
create index pipeline_executions_queued_idx on pipeline_executions (org_id, created_at desc, id desc)
  where status = 'queued';
create index pipeline_executions_running_idx on pipeline_executions (org_id, created_at desc, id desc)
  where status = 'running';
create index pipeline_executions_cancelling_idx on pipeline_executions (org_id, created_at desc, id desc)
  where status = 'cancelling';
create index pipeline_executions_succeeded_idx on pipeline_executions (org_id, created_at desc, id desc)
  where status = 'succeeded';
create index pipeline_executions_failed_idx on pipeline_executions (org_id, created_at desc, id desc)
  where status = 'failed';
create index pipeline_executions_cancelled_idx on pipeline_executions (org_id, created_at desc, id desc)
  where status = 'cancelled';
create index pipeline_executions_outcome_unknown_idx on pipeline_executions (org_id, created_at desc, id desc)
  where status = 'outcome_unknown';
-- Drift that goes on does not start a pipeline again while it still answers the first.
create unique index pipeline_executions_drift_key on pipeline_executions (org_id, pipeline_id)
  where trigger = 'drift' and finished_at is null;
select board3.tenant_table('pipeline_executions', true);

create table pipeline_stages (
  org_id uuid not null,
  id uuid not null,
  execution_id uuid not null,
  -- Its place in the pipeline's order, from 0.
  position integer not null constraint pipeline_stages_position_natural check (position >= 0),
  name text not null,
  kind stage_kind not null,
  needs text[] not null,
  status stage_status not null,
  -- How many attempts there were, the one that goes on among them.
  attempts integer not null default 0 constraint pipeline_stages_attempts_natural check (attempts >= 0),
  failure_reason failure_reason,
  failure_detail text not null default ''
    constraint pipeline_stages_failure_detail_length check (char_length(failure_detail) <= 1000),
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  constraint pipeline_stages_pkey primary key (org_id, id),
  constraint pipeline_stages_position_key unique (org_id, execution_id, position),
  constraint pipeline_stages_name_key unique (org_id, execution_id, name),
  constraint pipeline_stages_execution_fkey foreign key (org_id, execution_id) references pipeline_executions (org_id, id),
  constraint pipeline_stages_attempted check (attempts > 0 or status in ('blocked', 'ready', 'skipped', 'cancelled')),
  constraint pipeline_stages_reasoned
    check ((failure_reason is not null) = (status in ('failed', 'cancelled', 'outcome_unknown'))),
  constraint pipeline_stages_finished
    check ((status in ('blocked', 'ready', 'leased', 'running')) = (finished_at is null))
);
-- The queue, oldest first.
create index pipeline_stages_ready_idx on pipeline_stages (org_id, created_at, id) where status = 'ready';
select board3.tenant_table('pipeline_stages', true);

create table runners (
  org_id uuid not null,
  id uuid not null,
  name text collate "C" not null constraint runners_name_shape check (name ~ '^[A-Za-z0-9_.-]{1,100}$'),
  -- As it says itself; empty where it has no Terraform.
  terraform_version text not null
    constraint runners_terraform_version_length check (char_length(terraform_version) <= 64),
  -- Who registered it last: only they take stages in its name.
  principal_kind principal_kind not null,
  principal_id uuid not null,
  created_at timestamptz not null default clock_timestamp(),
  seen_at timestamptz not null default clock_timestamp(),
  constraint runners_pkey primary key (org_id, id),
  constraint runners_name_key unique (org_id, name)
);
select board3.tenant_table('runners', true);

-- One runner's try at a stage: its lease while it lasts, its record afterwards.
create table stage_attempts (
  org_id uuid not null,
  id uuid not null,
  stage_id uuid not null,
  number integer not null constraint stage_attempts_number_positive check (number > 0),
  runner_id uuid not null,
  -- Who took it: only they work with it, whoever has the runner's name meanwhile.
  principal_kind principal_kind not null,
  principal_id uuid not null,
  -- The fence: a write that names another one is refused.
  generation bigint not null default 1 constraint stage_attempts_generation_positive check (generation > 0),
  status attempt_status not null default 'leased',
  leased_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  renewed_at timestamptz not null default clock_timestamp(),
  -- Until when the lease is the runner's; by its own clock it gives up before.
  expires_at timestamptz not null,
  -- From when on it may be taken away: the end of the lease and a margin.
  fence_at timestamptz not null,
  finished_at timestamptz,
  log_bytes bigint not null default 0
    constraint stage_attempts_log_bytes_bounded check (log_bytes between 0 and 67108864),
  log_sealed boolean not null default false,
  -- Keyed hash of the job's credential.
  credential_hash bytea not null
    constraint stage_attempts_credential_hash_size check (octet_length(credential_hash) = 32),
  -- The plan file, sealed.
  plan bytea constraint stage_attempts_plan_size check (octet_length(plan) <= 3 * 1048576 + 1024),
  -- Keyed hash of the report that ended it, so that the same one again is known.
  completion bytea constraint stage_attempts_completion_size check (octet_length(completion) = 32),
  constraint stage_attempts_pkey primary key (org_id, id),
  constraint stage_attempts_number_key unique (org_id, stage_id, number),
  constraint stage_attempts_stage_fkey foreign key (org_id, stage_id) references pipeline_stages (org_id, id),
  constraint stage_attempts_runner_fkey foreign key (org_id, runner_id) references runners (org_id, id),
  constraint stage_attempts_fenced check (fence_at > expires_at),
  constraint stage_attempts_finished check ((status in ('leased', 'running')) = (finished_at is null))
);
-- Whatever goes wrong elsewhere: no two runners hold one stage.
create unique index stage_attempts_live_key on stage_attempts (org_id, stage_id) where status in ('leased', 'running');
create unique index stage_attempts_credential_key on stage_attempts (credential_hash)
  where status in ('leased', 'running');
create index stage_attempts_fence_idx on stage_attempts (fence_at, id) where status in ('leased', 'running');
select board3.tenant_table('stage_attempts', true);

-- The logs of attempts, sealed in pieces that join on without a gap.
create table stage_logs (
  org_id uuid not null,
  attempt_id uuid not null,
  start_offset bigint not null constraint stage_logs_start_offset_natural check (start_offset >= 0),
  -- Bytes in clear.
  length integer not null constraint stage_logs_length_bounded check (length between 1 and 1048576),
  content bytea not null constraint stage_logs_content_size check (octet_length(content) <= 1048576 + 1024),
  created_at timestamptz not null default clock_timestamp(),
  constraint stage_logs_pkey primary key (org_id, attempt_id, start_offset),
  constraint stage_logs_attempt_fkey foreign key (org_id, attempt_id) references stage_attempts (org_id, id)
);
select board3.tenant_table('stage_logs');

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
begin
  execute format('revoke insert, update, delete on designs from %s', app);
  execute format('revoke update, delete on pipelines from %s', app);
  execute format('revoke insert, update, delete on pipelines, runners from %s', worker);
  execute format('revoke update, delete on stage_logs from %s', app);
end
$$;

-- The job of a credential, while its lease lasts: asked before the organization is known.
create function job_by_credential(wanted bytea) returns table (org_id uuid, attempt_id uuid)
language sql stable security definer set search_path = pipelines, pg_temp as $$
  select a.org_id, a.id
  from stage_attempts a
  where a.credential_hash = wanted and a.status in ('leased', 'running')
$$;

-- Leases whose fence has passed, of every organization, oldest first and after a given one.
-- Each is looked at again under its execution's lock.
create function expired_leases(
  most integer,
  after_fence timestamptz default '-infinity',
  after_id uuid default '00000000-0000-0000-0000-000000000000'
) returns table (org_id uuid, attempt_id uuid, fence_at timestamptz)
language sql stable security definer set search_path = pipelines, pg_temp as $$
  select a.org_id, a.id, a.fence_at
  from stage_attempts a
  where a.status in ('leased', 'running') and a.fence_at <= clock_timestamp()
    and (a.fence_at, a.id) > (after_fence, after_id)
  order by a.fence_at, a.id
  limit most
$$;

grant execute on function job_by_credential(bytea) to board3_pipelines_app;
grant execute on function expired_leases(integer, timestamptz, uuid) to board3_pipelines_worker;
