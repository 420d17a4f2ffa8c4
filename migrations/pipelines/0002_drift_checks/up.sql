-- Checks for drift alone: a kind of stage, and a trigger for those that a schedule asks for.
alter type stage_kind rename to stage_kind_before;
create type stage_kind as enum ('validate', 'plan', 'apply', 'drift');
alter table pipeline_stages alter column kind type stage_kind using kind::text::stage_kind;
drop type stage_kind_before;

drop index pipeline_executions_drift_key;
alter table pipeline_executions drop constraint pipeline_executions_origin;
alter type execution_trigger rename to execution_trigger_before;
create type execution_trigger as enum ('manual', 'drift', 'schedule');
alter table pipeline_executions alter column trigger type execution_trigger using trigger::text::execution_trigger;
drop type execution_trigger_before;
alter table pipeline_executions add constraint pipeline_executions_origin check (
  case trigger
    when 'manual' then starter_id is not null and cause_event_id is null
    when 'drift' then starter_id is null and cause_event_id is not null
    when 'schedule' then starter_id is null and cause_event_id is not null
  end);
-- Drift that goes on does not start a pipeline again while it still answers the first.
create unique index pipeline_executions_drift_key on pipeline_executions (org_id, pipeline_id)
  where trigger = 'drift' and finished_at is null;
-- Those that a check for drift does not begin beside.
create index pipeline_executions_live_idx on pipeline_executions (org_id, state_name) where finished_at is null;
