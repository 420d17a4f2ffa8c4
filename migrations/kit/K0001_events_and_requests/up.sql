-- Events out, events in, and answers already given: part of every slice, run as its owner in its schema.

-- Events of this slice, written in the transaction of the change they tell of.
-- `position` stays null until the relay gives it; positions are dense, ids are not.
create table outbox (
  id bigint generated always as identity constraint outbox_pkey primary key,
  event_id uuid not null constraint outbox_event_id_key unique,
  org_id uuid not null,
  -- board3.events.v1.Event, encoded.
  envelope bytea not null constraint outbox_envelope_size check (octet_length(envelope) <= 65536),
  created_at timestamptz not null default clock_timestamp(),
  position bigint
    constraint outbox_position_key unique
    constraint outbox_position_positive check (position > 0)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);
create index outbox_unpositioned_idx on outbox (id) where position is null;
create index outbox_created_at_idx on outbox (created_at);

-- The last position given. The row lock on it fences relays off from each other.
-- `epoch` changes when positions may repeat, which is after a restore from a backup.
create table relay_head (
  source text constraint relay_head_pkey primary key,
  epoch uuid not null default gen_random_uuid(),
  position bigint not null default 0 constraint relay_head_position_natural check (position >= 0)
);
insert into relay_head (source) values (current_schema());

-- Events that took effect here; written in the transaction of the effect.
create table inbox (
  consumer text not null,
  source text not null,
  epoch uuid not null,
  event_id uuid not null,
  position bigint not null,
  applied_at timestamptz not null default clock_timestamp(),
  constraint inbox_pkey primary key (consumer, source, event_id)
);
create index inbox_applied_at_idx on inbox (applied_at);

-- How far each consumer has come in each source.
create table cursors (
  consumer text not null,
  source text not null,
  epoch uuid not null,
  position bigint not null constraint cursors_position_natural check (position >= 0),
  constraint cursors_pkey primary key (consumer, source)
);

-- Events whose effect failed for good; the cursor has moved on.
create table dead_letters (
  consumer text not null,
  source text not null,
  epoch uuid not null,
  position bigint not null,
  event_id uuid not null,
  envelope bytea not null,
  error text not null,
  attempts integer not null constraint dead_letters_attempts_positive check (attempts > 0),
  created_at timestamptz not null default clock_timestamp(),
  constraint dead_letters_pkey primary key (consumer, source, epoch, position)
);

-- What a call with this request id was answered, for 24 hours.
create table requests (
  org_id uuid not null,
  principal text not null,
  method text not null,
  request_id uuid not null,
  -- Keyed hash of the arguments: a repeat with others is refused.
  arguments_hash bytea not null constraint requests_arguments_hash_size check (octet_length(arguments_hash) = 32),
  -- The sealed answer; null where the answer holds a secret, then `resource_id` tells what was made.
  response bytea,
  resource_id text,
  created_at timestamptz not null default clock_timestamp(),
  constraint requests_pkey primary key (org_id, principal, method, request_id)
);
-- For the worker that deletes across organizations.
create index requests_created_at_idx on requests (created_at);
select board3.tenant_table('requests');

do $$
declare
  app constant text := format('%I', 'board3_' || current_schema() || '_app');
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
begin
  execute format('grant insert on outbox to %s, %s', app, worker);
  execute format('grant select, update (position) on outbox to %s', worker);
  execute format('grant select, update on relay_head to %s', worker);
  execute format('grant select, insert, update, delete on inbox, cursors, dead_letters to %s', worker);

  -- The worker sees and deletes what is older than a day, never the answers themselves.
  execute format('grant delete, select (org_id, principal, method, request_id, created_at) on requests to %s', worker);
  execute format('create policy worker_old on requests for select to %s using (created_at < now() - interval ''24 hours'')', worker);
  execute format('create policy worker_prune on requests for delete to %s using (created_at < now() - interval ''24 hours'')', worker);
end
$$;
