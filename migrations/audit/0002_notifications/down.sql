drop table notification_reads;
drop table notifications;
drop type notification_kind;
-- An enum's value cannot be dropped, so the type is made anew. Where the trail holds a call by a job, this fails and
-- nothing is reverted: the trail is not rewritten.
alter table audit_logs drop constraint audit_logs_call_is_complete;
alter type actor_kind rename to actor_kind_with_job;
create type actor_kind as enum ('user', 'api_key', 'service', 'anonymous');
alter table audit_logs alter column actor_kind type actor_kind using actor_kind::text::actor_kind;
drop type actor_kind_with_job;
alter table audit_logs add constraint audit_logs_call_is_complete check (
  kind <> 'call' or num_nulls(actor_kind, action, outcome) = 0 and num_nonnulls(envelope, envelope_hash) = 0
);
