-- How versions are kept: compressed, under a data key each, old ones as what distinguishes them from a newer one.
--
-- What a version says never changes. How its content stands does: `body_id` is new whenever its chunks are others, and
-- who changes it holds the row of `states`, as everybody who writes.

-- A type of its own, not values added to the old one: the same transaction may use them.
alter type state_version_kind rename to state_version_kind_before;
create type state_version_kind as enum ('normal', 'forced', 'intermediate', 'rollback', 'import');
alter table state_versions alter column kind type state_version_kind using kind::text::state_version_kind;
drop type state_version_kind_before;

alter table states
  -- What is kept of old versions; without `keep_versions`, all are.
  add column keep_versions integer constraint states_keep_versions_positive check (keep_versions between 1 and 100000),
  -- The newest version of each of so many days, beyond those.
  add column keep_days integer not null default 0 constraint states_keep_days_bounded check (keep_days between 0 and 3650),
  -- The newest version of each of so many weeks, beyond those.
  add column keep_weeks integer not null default 0 constraint states_keep_weeks_bounded check (keep_weeks between 0 and 520),
  -- Bytes of all chunks of its versions.
  add column stored_bytes bigint not null default 0 constraint states_stored_bytes_natural check (stored_bytes >= 0),
  add constraint states_retention_whole check (keep_versions is not null or (keep_days = 0 and keep_weeks = 0));

alter table state_versions
  -- The lock that it was written under.
  add column lock_id text constraint state_versions_lock_id_length check (char_length(lock_id) between 1 and 128),
  add column body_id uuid not null default gen_random_uuid(),
  -- Seals the chunks and hashes the content; itself sealed by a key of the ring. Null as long as the content stands as it did
  -- before there were data keys: not compressed, each chunk sealed by the ring.
  add column data_key bytea constraint state_versions_data_key_size check (octet_length(data_key) = 149),
  add column key_id bytea generated always as (substring(data_key from 2 for 4)) stored,
  -- The newer version that the content is told by; null where it is whole.
  add column base_number bigint constraint state_versions_base_newer check (base_number > number),
  -- The newer version that it was weighed against when it was decided whether it is kept whole.
  add column weighed_number bigint constraint state_versions_weighed_newer check (weighed_number > number),
  -- Bytes of its chunks.
  add column stored_bytes bigint not null default 0
    constraint state_versions_stored_bytes_natural check (stored_bytes >= 0);
create index state_versions_key_idx on state_versions (org_id, key_id);
create index state_versions_base_idx on state_versions (org_id, state_id, base_number) where base_number is not null;

update state_versions v set stored_bytes = c.bytes
from (select org_id, version_id, sum(octet_length(sealed)) bytes from state_chunks group by org_id, version_id) c
where c.org_id = v.org_id and c.version_id = v.id;
update states s set stored_bytes = v.bytes
from (select org_id, state_id, sum(stored_bytes) bytes from state_versions group by org_id, state_id) v
where v.org_id = s.org_id and v.state_id = s.id;

-- What an organization may keep, where it is not what all may; an operator writes it.
create table organization_limits (
  org_id uuid not null,
  -- The most bytes of one content.
  state_bytes bigint constraint organization_limits_state_bytes_positive check (state_bytes between 1 and 2147483648),
  -- The most bytes of all its versions, as they are stored.
  stored_bytes bigint constraint organization_limits_stored_bytes_natural check (stored_bytes >= 0),
  constraint organization_limits_pkey primary key (org_id)
);
select board3.tenant_table('organization_limits');

-- States that may have something to be compacted. A writer adds the row while it holds the state's, and only who holds that and has
-- found nothing left to do takes it away.
create table compactions (
  org_id uuid not null,
  state_id uuid not null,
  due_at timestamptz not null,
  constraint compactions_pkey primary key (org_id, state_id),
  constraint compactions_state_fkey foreign key (org_id, state_id) references states (org_id, id)
);
create index compactions_due_idx on compactions (due_at, org_id, state_id);
select board3.tenant_table('compactions', true);
insert into compactions (org_id, state_id, due_at) select org_id, id, clock_timestamp() from states where latest_version > 0;

-- Executions that have not come to their end, by what pipelines last told of them: no version of their state goes meanwhile.
create table executions (
  org_id uuid not null,
  execution_id uuid not null,
  state_name text collate "C" not null constraint executions_state_name_length check (char_length(state_name) between 1 and 200),
  live boolean not null,
  revision bigint not null,
  constraint executions_pkey primary key (org_id, execution_id)
);
create index executions_live_idx on executions (org_id, state_name) where live;
select board3.tenant_table('executions', true);

-- Rotations of the keys that data keys are sealed by: of one organization, or of all where it is the platform's.
create table key_rotations (
  org_id uuid not null,
  id uuid not null,
  -- The key of the ring that data keys are sealed by in the end.
  key_id bytea not null constraint key_rotations_key_id_size check (octet_length(key_id) = 4),
  -- How many versions were sealed otherwise at the start, and what has become of them.
  total bigint not null constraint key_rotations_total_natural check (total >= 0),
  done bigint not null default 0 constraint key_rotations_done_natural check (done >= 0),
  failed bigint not null default 0 constraint key_rotations_failed_natural check (failed >= 0),
  -- The version after which it goes on.
  after_org uuid not null default '00000000-0000-0000-0000-000000000000',
  after_state uuid not null default '00000000-0000-0000-0000-000000000000',
  after_number bigint not null default 0,
  started_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  constraint key_rotations_pkey primary key (org_id, id)
);
-- One at a time.
create unique index key_rotations_running_key on key_rotations (org_id) where finished_at is null;
select board3.tenant_table('key_rotations', true);

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
  t text;
begin
  foreach t in array array['states', 'state_locks', 'state_versions', 'state_chunks'] loop
    execute format('alter policy tenant on %I to %s, %s', t, app, worker);
  end loop;
  execute format('grant select on states, state_locks, state_versions, state_chunks to %s', worker);
  execute format('grant update (stored_bytes) on states to %s', worker);
  execute format(
    'grant update (body_id, data_key, content_hash, chunks, base_number, weighed_number, stored_bytes), delete on state_versions to %s',
    worker
  );
  execute format('grant insert, delete on state_chunks to %s', worker);
  -- A version turns intermediate when its lock writes again.
  execute format('grant update (kind) on state_versions to %s', app);
  execute format('revoke insert, update, delete on organization_limits, executions from %s', app);
  execute format('revoke update, delete on compactions, key_rotations from %s', app);
  -- Who asks for another rotation ends the one to a key that is no longer in use.
  execute format('grant update (finished_at) on key_rotations to %s', app);
  execute format('revoke insert, delete on key_rotations from %s', worker);
end
$$;

-- States with something to do, of every organization, longest due first.
create function due_compactions(most integer) returns table (org_id uuid, state_id uuid)
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select c.org_id, c.state_id from compactions c
  where c.due_at <= clock_timestamp() order by c.due_at, c.org_id, c.state_id limit most
$$;

-- Rotations to a key that have not come to their end, of every organization.
create function running_rotations(wanted bytea) returns table (org_id uuid, id uuid)
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select r.org_id, r.id from key_rotations r where r.finished_at is null and r.key_id = wanted
$$;

-- The first organization from this one on with a version that is sealed by another key.
create function next_sealed_otherwise(wanted bytea, from_org uuid) returns uuid
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select v.org_id from state_versions v
  where v.org_id >= from_org and v.key_id is distinct from wanted order by v.org_id limit 1
$$;

-- How many versions of all organizations each key seals; null for contents that have no data key.
create function versions_by_key() returns table (key_id bytea, versions bigint)
language sql stable security definer set search_path = terraform_state, pg_temp as $$
  select v.key_id, count(*) from state_versions v group by v.key_id
$$;

grant execute on function due_compactions(integer) to board3_terraform_state_worker;
grant execute on function running_rotations(bytea) to board3_terraform_state_worker;
grant execute on function next_sealed_otherwise(bytea, uuid) to board3_terraform_state_worker;
grant execute on function versions_by_key() to board3_terraform_state_worker;
