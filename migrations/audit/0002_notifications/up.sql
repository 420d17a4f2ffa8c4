-- What people should hear of, and who has read it; and jobs as callers in the trail.

alter type actor_kind add value 'job';

create type notification_kind as enum ('drift_detected', 'execution_failed', 'execution_outcome_unknown');

create table notifications (
  org_id uuid not null,
  -- The id of the event that told of it.
  id uuid not null,
  kind notification_kind not null,
  title text not null constraint notifications_title_length check (char_length(title) between 1 and 500),
  resource_type text not null,
  resource_id text not null,
  design_id uuid,
  -- By the producer's clock.
  occurred_at timestamptz not null,
  constraint notifications_pkey primary key (org_id, id)
);
create index notifications_occurred_at_idx on notifications (org_id, occurred_at desc, id desc);
select board3.tenant_table('notifications', true);

-- A notification that has no row here for a principal has not been read by it.
create table notification_reads (
  org_id uuid not null,
  -- `user:<id>`, `key:<id>` or `job:<id>`.
  principal text collate "C" not null constraint notification_reads_principal_length check (char_length(principal) <= 64),
  notification_id uuid not null,
  read_at timestamptz not null default clock_timestamp(),
  constraint notification_reads_pkey primary key (org_id, principal, notification_id),
  constraint notification_reads_notification_fkey
    foreign key (org_id, notification_id) references notifications (org_id, id)
);
select board3.tenant_table('notification_reads');

-- Only the consumer writes notifications, and it only adds; what is read stays read.
revoke insert, update, delete on notifications from board3_audit_app;
revoke update, delete on notifications from board3_audit_worker;
revoke update, delete on notification_reads from board3_audit_app;
