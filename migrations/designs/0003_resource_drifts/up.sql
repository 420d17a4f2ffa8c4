-- What has drifted of designs' resources, as terraform_state's checks last told it.

create type resource_drift_kind as enum ('changed', 'deleted');

-- One row for each drifted resource of a state, told of the state's last check. No foreign key: a state may tell of a
-- design, or of a resource, that is not there any more; such a row is shown with none.
create table resource_drifts (
  org_id uuid not null,
  state_id uuid not null,
  -- `<type>.<name>`, without an instance key.
  address text collate "C" not null,
  design_id uuid not null,
  state_name text collate "C" not null,
  -- The worst of the resource's instances.
  kind resource_drift_kind not null,
  check_id uuid not null,
  -- By the producer's clock.
  detected_at timestamptz not null,
  constraint resource_drifts_pkey primary key (org_id, state_id, address)
);
create index resource_drifts_design_idx on resource_drifts (org_id, design_id, address);
select board3.tenant_table('resource_drifts', true);
-- Only the consumer writes.
revoke insert, update, delete on resource_drifts from board3_designs_app;
