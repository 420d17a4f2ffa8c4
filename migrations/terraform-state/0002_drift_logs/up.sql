create type drift_kind as enum ('changed', 'deleted');

-- What checks for drift have found: a row for each attribute, and one for each resource that is gone.
-- Values are JSON, sealed; nobody but the owner can change or delete a row.
create table drift_logs (
  org_id uuid not null,
  id uuid not null,
  state_id uuid not null,
  check_id uuid not null,
  address text not null constraint drift_logs_address_length check (char_length(address) between 1 and 512),
  resource_type text not null
    constraint drift_logs_resource_type_length check (char_length(resource_type) between 1 and 200),
  kind drift_kind not null,
  path text not null constraint drift_logs_path_length check (char_length(path) <= 1001),
  before bytea,
  after bytea,
  masked boolean not null,
  -- The same for all of a check.
  detected_at timestamptz not null default now(),
  constraint drift_logs_pkey primary key (org_id, id),
  constraint drift_logs_state_fkey foreign key (org_id, state_id) references states (org_id, id),
  constraint drift_logs_masked_empty check (not masked or (before is null and after is null)),
  constraint drift_logs_deleted_whole check (kind <> 'deleted' or (path = '' and before is null and after is null))
);
create index drift_logs_state_idx on drift_logs (org_id, state_id, id desc);
create index drift_logs_check_idx on drift_logs (org_id, check_id, id desc);
select board3.tenant_table('drift_logs');

do $$
begin
  execute format('revoke update, delete on drift_logs from %I', 'board3_' || current_schema() || '_app');
end
$$;
