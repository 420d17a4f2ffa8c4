-- The trail of who did what: one row for each audited event of any slice, never changed, never removed.

-- `call` is an event that was understood; `unparsed` is one that was not, kept as it came rather than lost.
create type audit_log_kind as enum ('call', 'unparsed');
create type actor_kind as enum ('user', 'api_key', 'service', 'anonymous');
create type outcome as enum ('success', 'failure', 'denied');

create table audit_logs (
  org_id uuid not null,
  -- The event's id; for an unparsed event without one, derived from its place in the log and its bytes.
  id uuid not null,
  kind audit_log_kind not null,
  -- By this service's clock.
  recorded_at timestamptz not null,
  -- By the producer's clock; of an unparsed event, when it was recorded.
  occurred_at timestamptz not null,
  -- Where the event stands: the slice that wrote it, the epoch and the position of that slice's log.
  source text not null,
  epoch uuid not null,
  position bigint not null,
  actor_kind actor_kind,
  -- User id, API key id or slice name; null for anonymous callers.
  actor_id text,
  action text,
  resource_type text,
  resource_id text,
  outcome outcome,
  reason text,
  request_id text,
  idempotency_key text,
  trace_id text,
  caller_address text,
  cause_event_id text,
  chain_depth integer not null,
  -- SHA-256 of `envelope`.
  envelope_hash bytea,
  -- board3.events.v1.Event, encoded; of unparsed events only.
  envelope bytea,
  -- Every column but `envelope` in one deterministic encoding (services/audit/src/leaf.rs), whose first byte is its
  -- version. It is the evidence and what is answered; the columns are there to find it.
  leaf_input bytea not null,
  constraint audit_logs_pkey primary key (org_id, id),
  constraint audit_logs_call_is_complete check (
    kind <> 'call' or num_nulls(actor_kind, action, outcome) = 0 and num_nonnulls(envelope, envelope_hash) = 0
  ),
  constraint audit_logs_unparsed_is_raw check (
    kind <> 'unparsed' or num_nulls(envelope, envelope_hash) = 0 and sha256(envelope) = envelope_hash
  ),
  constraint audit_logs_leaf_input_present check (octet_length(leaf_input) > 1)
);

-- A page is read newest first, whatever it is filtered by.
create index audit_logs_occurred_at_idx on audit_logs (org_id, occurred_at desc, id desc);
create index audit_logs_actor_idx on audit_logs (org_id, actor_id, occurred_at desc, id desc);
create index audit_logs_action_idx on audit_logs (org_id, action, occurred_at desc, id desc);
create index audit_logs_resource_idx on audit_logs (org_id, resource_type, resource_id, occurred_at desc, id desc);
create index audit_logs_resource_id_idx on audit_logs (org_id, resource_id, occurred_at desc, id desc);
create index audit_logs_request_id_idx on audit_logs (org_id, request_id);
create index audit_logs_idempotency_key_idx on audit_logs (org_id, idempotency_key);

select board3.tenant_table('audit_logs', true);
-- Only the consumer writes, and it only adds.
revoke insert, update, delete on audit_logs from board3_audit_app;
revoke update, delete on audit_logs from board3_audit_worker;

create function refuse_change() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception '% is append-only: % is refused', tg_table_name, tg_op using errcode = 'insufficient_privilege';
end
$$;

-- One trigger for statements, so that it stops TRUNCATE too; ALWAYS, so that session_replication_role does not hush it.
create trigger audit_logs_append_only before update or delete or truncate on audit_logs
  for each statement execute function refuse_change();
alter table audit_logs enable always trigger audit_logs_append_only;
