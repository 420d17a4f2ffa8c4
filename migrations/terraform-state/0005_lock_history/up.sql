-- Who held a state, and how it ended; which jobs have ended, so that none of them holds one for ever.
--
-- The worker takes away the locks of jobs that have ended: it writes what a release writes.

create type lock_ending as enum ('released', 'forced', 'orphaned');

alter table state_locks
  -- Not empty for a maintenance lock, which no job takes or ends.
  add column maintenance_reason text not null default ''
    constraint state_locks_maintenance_reason_length check (char_length(maintenance_reason) <= 1000),
  add column execution_id uuid,
  add constraint state_locks_maintenance_by_a_person check (maintenance_reason = '' or holder_kind <> 'job'),
  add constraint state_locks_execution_of_a_job check (execution_id is null or holder_kind = 'job');
create index state_locks_created_idx on state_locks (org_id, created_at, state_id);
create index state_locks_holder_idx on state_locks (org_id, holder_id);

-- The locks that are over; nobody but the owner can change or delete a row.
create table lock_history (
  org_id uuid not null,
  id uuid not null,
  state_id uuid not null,
  lock_id text not null constraint lock_history_lock_id_length check (char_length(lock_id) between 1 and 128),
  operation text not null constraint lock_history_operation_length check (char_length(operation) <= 128),
  who text not null constraint lock_history_who_length check (char_length(who) <= 256),
  info text not null constraint lock_history_info_length check (char_length(info) <= 1024),
  terraform_version text not null
    constraint lock_history_terraform_version_length check (char_length(terraform_version) <= 64),
  holder_kind principal_kind not null,
  holder_id uuid not null,
  created_at timestamptz not null,
  last_seen_at timestamptz not null,
  maintenance_reason text not null
    constraint lock_history_maintenance_reason_length check (char_length(maintenance_reason) <= 1000),
  execution_id uuid,
  ending lock_ending not null,
  -- Nobody where the service ended it.
  ended_by_kind principal_kind,
  ended_by_id uuid,
  ended_reason text not null constraint lock_history_ended_reason_length check (char_length(ended_reason) <= 1000),
  ended_at timestamptz not null default clock_timestamp(),
  constraint lock_history_pkey primary key (org_id, id),
  constraint lock_history_state_fkey foreign key (org_id, state_id) references states (org_id, id),
  constraint lock_history_ended_by_whole check (
    (ended_by_kind is null) = (ended_by_id is null) and (ended_by_id is null) = (ending = 'orphaned')
  )
);
create index lock_history_state_idx on lock_history (org_id, state_id, id desc);
select board3.tenant_table('lock_history', true);

-- Jobs that took a lock or have ended. Who takes a lock for a job and who ends the job hold its row, and before the
-- state's: of a lock that comes with the job's end, one of the two sees the other.
create table lock_jobs (
  org_id uuid not null,
  job_id uuid not null,
  -- Null while the job is not known to have ended.
  ended_at timestamptz,
  constraint lock_jobs_pkey primary key (org_id, job_id)
);
create index lock_jobs_ended_idx on lock_jobs (org_id, ended_at);
select board3.tenant_table('lock_jobs', true);

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
begin
  execute format('revoke update, delete on lock_history from %s, %s', app, worker);
  execute format('revoke delete on lock_jobs from %s', app);
  execute format(
    'grant update (released_lock_id, released_by_force, released_reason, released_by_kind, released_by_id, released_at) on states to %s',
    worker
  );
  execute format('grant delete on state_locks to %s', worker);
end
$$;
