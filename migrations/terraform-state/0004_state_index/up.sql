-- What an organization knows its states by: labels, what is deleted, and which resources are where.

alter table states
  add column labels jsonb not null default '{}' constraint states_labels_object check (jsonb_typeof(labels) = 'object'),
  -- Grows with every change of what people say about the state; versions and locks leave it.
  add column revision bigint not null default 1 constraint states_revision_positive check (revision > 0),
  -- Nothing of a deleted state is read or written; its name stays its own.
  add column deleted_at timestamptz,
  -- The greatest serial that any of its versions ever had: retention may have taken that version.
  add column greatest_serial bigint not null default 0
    constraint states_greatest_serial_natural check (greatest_serial >= 0),
  -- Keyed hash of the rows in `state_resources`: most writes leave them as they are.
  add column resources_hash bytea constraint states_resources_hash_size check (octet_length(resources_hash) = 32),
  -- How many resources of the current version have no row.
  add column unlisted_resources integer not null default 0
    constraint states_unlisted_resources_natural check (unlisted_resources >= 0);
create index states_deleted_idx on states (org_id, name) where deleted_at is not null;
create index state_locks_seen_idx on state_locks (org_id, last_seen_at);
update states s set greatest_serial = v.serial
from (select org_id, state_id, max(serial) serial from state_versions group by org_id, state_id) v
where v.org_id = s.org_id and v.state_id = s.id;

-- The resources of the current versions, without anything of their attributes or their instances' keys.
-- A state written before this table was made has its rows with its next version.
create table state_resources (
  org_id uuid not null,
  state_id uuid not null,
  address text collate "C" not null
    constraint state_resources_address_length check (octet_length(address) between 1 and 1000),
  type text collate "C" not null constraint state_resources_type_length check (octet_length(type) between 1 and 200),
  provider text collate "C" not null constraint state_resources_provider_length check (octet_length(provider) <= 300),
  -- Empty for the root.
  module text collate "C" not null constraint state_resources_module_length check (octet_length(module) <= 1000),
  instances integer not null constraint state_resources_instances_natural check (instances >= 0),
  constraint state_resources_pkey primary key (org_id, state_id, address),
  constraint state_resources_state_fkey foreign key (org_id, state_id) references states (org_id, id)
);
create index state_resources_address_idx on state_resources (org_id, address, state_id);
create index state_resources_type_idx on state_resources (org_id, type, address, state_id);
create index state_resources_provider_idx on state_resources (org_id, provider, address, state_id);
create index state_resources_module_idx on state_resources (org_id, module, address, state_id);
select board3.tenant_table('state_resources');
