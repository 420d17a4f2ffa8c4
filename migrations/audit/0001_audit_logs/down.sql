drop table audit_logs;
drop function refuse_change();
drop type outcome;
drop type actor_kind;
drop type audit_log_kind;
