-- Terraform's states: what was written, by whom, sealed; and who may write.
--
-- Whoever changes a state, its lock or its versions holds the row of `states` first. A version is never changed, and
-- what it was made of is never deleted by the service. Contents stand in `state_chunks` alone, each chunk sealed to its
-- organization, state, version and place.

create type state_version_kind as enum ('normal', 'forced');
create type principal_kind as enum ('user', 'key', 'job');

-- Designs as their service last told them; an older revision than the one here is ignored.
create table designs (
  org_id uuid not null,
  design_id uuid not null,
  deleted boolean not null,
  revision bigint not null,
  updated_at timestamptz not null default clock_timestamp(),
  constraint designs_pkey primary key (org_id, design_id)
);
select board3.tenant_table('designs', true);

create table states (
  org_id uuid not null,
  id uuid not null,
  name text collate "C" not null constraint states_name_length check (char_length(name) between 1 and 200),
  design_id uuid,
  -- 0 for a state that was never written.
  latest_version bigint not null default 0 constraint states_latest_version_natural check (latest_version >= 0),
  -- The lock that was given back or taken away last: its holder's repeat is told from a stranger's call by it.
  released_lock_id text constraint states_released_lock_id_length check (char_length(released_lock_id) between 1 and 128),
  -- Whether it was taken away, and why.
  released_by_force boolean not null default false,
  released_reason text not null default ''
    constraint states_released_reason_length check (char_length(released_reason) <= 1000),
  released_by_kind principal_kind,
  released_by_id uuid,
  released_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint states_pkey primary key (org_id, id),
  constraint states_name_key unique (org_id, name),
  constraint states_released_whole check (
    (released_lock_id is null) = (released_at is null)
    and (released_lock_id is null) = (released_by_kind is null)
    and (released_lock_id is null) = (released_by_id is null)
  )
);
create index states_design_idx on states (org_id, design_id, name);
select board3.tenant_table('states');

-- At most one lock for each state; it has no end of its own.
create table state_locks (
  org_id uuid not null,
  state_id uuid not null,
  lock_id text not null constraint state_locks_lock_id_length check (char_length(lock_id) between 1 and 128),
  operation text not null constraint state_locks_operation_length check (char_length(operation) <= 128),
  who text not null constraint state_locks_who_length check (char_length(who) <= 256),
  info text not null constraint state_locks_info_length check (char_length(info) <= 1024),
  terraform_version text not null constraint state_locks_terraform_version_length check (char_length(terraform_version) <= 64),
  holder_kind principal_kind not null,
  holder_id uuid not null,
  created_at timestamptz not null default clock_timestamp(),
  last_seen_at timestamptz not null default clock_timestamp(),
  constraint state_locks_pkey primary key (org_id, state_id),
  constraint state_locks_state_fkey foreign key (org_id, state_id) references states (org_id, id)
);
select board3.tenant_table('state_locks');

create table state_versions (
  org_id uuid not null,
  state_id uuid not null,
  number bigint not null constraint state_versions_number_positive check (number > 0),
  -- Random, made before the content was sealed to it.
  id uuid not null,
  -- Terraform's; neither unique nor dense.
  serial bigint not null constraint state_versions_serial_natural check (serial >= 0),
  lineage text not null constraint state_versions_lineage_length check (char_length(lineage) <= 200),
  kind state_version_kind not null,
  size_bytes bigint not null constraint state_versions_size_positive check (size_bytes > 0),
  chunks integer not null constraint state_versions_chunks_positive check (chunks > 0),
  -- Keyed BLAKE3 of the content and of what this row says about it.
  content_hash bytea not null constraint state_versions_content_hash_size check (octet_length(content_hash) = 32),
  terraform_version text not null
    constraint state_versions_terraform_version_length check (char_length(terraform_version) <= 64),
  -- -1 where the content is opaque.
  resource_count integer not null constraint state_versions_resource_count_known check (resource_count >= -1),
  -- Whether it holds neither resources nor outputs: anything may follow it.
  blank boolean not null,
  author_kind principal_kind not null,
  author_id uuid not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint state_versions_pkey primary key (org_id, state_id, number),
  constraint state_versions_id_key unique (org_id, id),
  constraint state_versions_state_fkey foreign key (org_id, state_id) references states (org_id, id)
);
select board3.tenant_table('state_versions');

create table state_chunks (
  org_id uuid not null,
  version_id uuid not null,
  -- 0, 1, 2, … of the version.
  place integer not null constraint state_chunks_place_natural check (place >= 0),
  sealed bytea not null constraint state_chunks_sealed_size check (octet_length(sealed) <= 1048576),
  constraint state_chunks_pkey primary key (org_id, version_id, place),
  constraint state_chunks_version_fkey foreign key (org_id, version_id) references state_versions (org_id, id)
);
-- What is sealed does not get smaller.
alter table state_chunks alter column sealed set storage external;
select board3.tenant_table('state_chunks');

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
begin
  execute format('revoke insert, update, delete on designs from %s', app);
  execute format('revoke delete on states from %s', app);
  execute format('revoke update, delete on state_versions, state_chunks from %s', app);
end
$$;
