-- Drift logs become findings: written once for each value that is seen, with a life of their own. What was found is
-- changed by nobody; where it stands is. Whoever changes a drift log holds the row of its state first, so that the
-- changes of a state have dense numbers in the order of their commits.

create type drift_status as enum ('open', 'acknowledged', 'accepted', 'resolved', 'reopened', 'ignored');
create type drift_severity as enum ('info', 'warning', 'critical');
create type drift_cause as enum (
  'in_sync', 'pending_apply', 'drifted', 'adopted_outside', 'conflict', 'unmanaged', 'missing', 'unknown'
);

-- What was found before there were fingerprints is resolved by the next check, which opens what is still there.
alter table drift_logs
  add column fingerprint bytea constraint drift_logs_fingerprint_size check (octet_length(fingerprint) = 32),
  add column status drift_status not null default 'open',
  add column severity drift_severity not null default 'warning',
  add column last_check_id uuid,
  add column last_seen_at timestamptz,
  add column times_seen integer not null default 1 constraint drift_logs_times_seen_positive check (times_seen > 0),
  add column opened_at timestamptz,
  add column resolved_at timestamptz;
update drift_logs set fingerprint = sha256(uuid_send(id)), last_check_id = check_id, last_seen_at = detected_at,
  opened_at = detected_at;
alter table drift_logs
  alter column fingerprint set not null,
  alter column last_check_id set not null,
  alter column last_seen_at set not null,
  alter column opened_at set not null,
  -- A finding that is seen first when it is written says so by itself.
  alter column last_seen_at set default now(),
  alter column opened_at set default now(),
  add constraint drift_logs_fingerprint_key unique (org_id, state_id, fingerprint),
  add constraint drift_logs_resolved_dated check ((status = 'resolved') = (resolved_at is not null));
drop index drift_logs_check_idx;
create index drift_logs_detected_idx on drift_logs (org_id, detected_at);
create index drift_logs_resolved_idx on drift_logs (org_id, resolved_at) where resolved_at is not null;

create table drift_checks (
  org_id uuid not null,
  id uuid not null,
  state_id uuid not null,
  -- 1, 2, 3, … of the state.
  number bigint not null constraint drift_checks_number_positive check (number > 0),
  -- Whether the plan failed: then nothing in it was looked at.
  errored boolean not null,
  drifted_resources integer not null constraint drift_checks_drifted_natural check (drifted_resources >= 0),
  normalised_resources integer not null constraint drift_checks_normalised_natural check (normalised_resources >= 0),
  moved_resources integer not null constraint drift_checks_moved_natural check (moved_resources >= 0),
  unapplied_resources integer not null constraint drift_checks_unapplied_natural check (unapplied_resources >= 0),
  failed_checks integer not null constraint drift_checks_failed_natural check (failed_checks >= 0),
  -- Whether there were more rows of the view than are kept.
  truncated boolean not null,
  checked_at timestamptz not null default now(),
  constraint drift_checks_pkey primary key (org_id, id),
  constraint drift_checks_number_key unique (org_id, state_id, number),
  constraint drift_checks_state_fkey foreign key (org_id, state_id) references states (org_id, id)
);
create index drift_checks_checked_idx on drift_checks (org_id, checked_at);
select board3.tenant_table('drift_checks');

-- Which drift logs a check saw; of each state's last 100 checks.
create table drift_sightings (
  org_id uuid not null,
  check_id uuid not null,
  drift_log_id uuid not null,
  constraint drift_sightings_pkey primary key (org_id, check_id, drift_log_id),
  constraint drift_sightings_check_fkey foreign key (org_id, check_id) references drift_checks (org_id, id),
  constraint drift_sightings_log_fkey foreign key (org_id, drift_log_id) references drift_logs (org_id, id)
);
select board3.tenant_table('drift_sightings');

-- What happened to drift logs; never changed.
create table drift_changes (
  org_id uuid not null,
  state_id uuid not null,
  number bigint not null constraint drift_changes_number_positive check (number > 0),
  drift_log_id uuid not null,
  -- Null where it was new.
  before drift_status,
  after drift_status not null,
  reason text not null constraint drift_changes_reason_length check (char_length(reason) <= 1000),
  -- Either a caller or a check did it.
  actor_kind principal_kind,
  actor_id uuid,
  check_id uuid,
  changed_at timestamptz not null default clock_timestamp(),
  constraint drift_changes_pkey primary key (org_id, state_id, number),
  constraint drift_changes_log_fkey foreign key (org_id, drift_log_id) references drift_logs (org_id, id),
  constraint drift_changes_by_one check (
    (actor_kind is null) = (actor_id is null) and (actor_id is null) <> (check_id is null)
  )
);
create index drift_changes_log_idx on drift_changes (org_id, drift_log_id, number desc);
select board3.tenant_table('drift_changes');

-- What checks go by. A pattern that is empty fits everything.
create table drift_rules (
  org_id uuid not null,
  id uuid not null,
  state_id uuid,
  address text not null constraint drift_rules_address_length check (char_length(address) <= 512),
  resource_type text not null constraint drift_rules_resource_type_length check (char_length(resource_type) <= 200),
  path text not null constraint drift_rules_path_length check (char_length(path) <= 1000),
  kind drift_kind,
  -- Null for a rule that ignores.
  severity drift_severity,
  reason text not null constraint drift_rules_reason_length check (char_length(reason) between 1 and 1000),
  expires_at timestamptz,
  author_kind principal_kind not null,
  author_id uuid not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint drift_rules_pkey primary key (org_id, id),
  constraint drift_rules_state_fkey foreign key (org_id, state_id) references states (org_id, id),
  -- Nothing is ignored for ever.
  constraint drift_rules_ignore_ends check (severity is not null or expires_at is not null)
);
select board3.tenant_table('drift_rules');

-- Design, state and reality as the last whole check of each state saw them; values are JSON, sealed.
create table drift_views (
  org_id uuid not null,
  state_id uuid not null,
  -- 0, 1, 2, … of the view.
  place integer not null constraint drift_views_place_natural check (place >= 0),
  check_id uuid not null,
  address text not null constraint drift_views_address_length check (char_length(address) between 1 and 512),
  resource_type text not null
    constraint drift_views_resource_type_length check (char_length(resource_type) between 1 and 200),
  path text not null constraint drift_views_path_length check (char_length(path) <= 1001),
  cause drift_cause not null,
  -- The three values, in one.
  sealed bytea,
  masked boolean not null,
  constraint drift_views_pkey primary key (org_id, state_id, place),
  constraint drift_views_check_fkey foreign key (org_id, check_id) references drift_checks (org_id, id),
  constraint drift_views_masked_empty check (not masked or sealed is null)
);
create index drift_views_address_idx on drift_views (org_id, state_id, address, place);
select board3.tenant_table('drift_views');

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
begin
  execute format(
    'grant update (status, severity, last_check_id, last_seen_at, times_seen, opened_at, resolved_at) on drift_logs to %s',
    app
  );
  execute format('revoke update, delete on drift_checks, drift_changes from %s', app);
  execute format('revoke update on drift_sightings, drift_rules, drift_views from %s', app);
end
$$;
