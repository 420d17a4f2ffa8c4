-- What the tables before knew no name for goes: executions of a schedule, and those with a stage that checks for drift.
delete from stage_logs l using stage_attempts a, pipeline_stages s, pipeline_executions e
  where l.org_id = a.org_id and l.attempt_id = a.id and a.org_id = s.org_id and a.stage_id = s.id
    and s.org_id = e.org_id and s.execution_id = e.id
    and (e.trigger = 'schedule' or exists (
      select from pipeline_stages d where d.org_id = e.org_id and d.execution_id = e.id and d.kind = 'drift'));
delete from stage_attempts a using pipeline_stages s, pipeline_executions e
  where a.org_id = s.org_id and a.stage_id = s.id and s.org_id = e.org_id and s.execution_id = e.id
    and (e.trigger = 'schedule' or exists (
      select from pipeline_stages d where d.org_id = e.org_id and d.execution_id = e.id and d.kind = 'drift'));
delete from pipeline_stages s using pipeline_executions e
  where s.org_id = e.org_id and s.execution_id = e.id
    and (e.trigger = 'schedule' or exists (
      select from pipeline_stages d where d.org_id = e.org_id and d.execution_id = e.id and d.kind = 'drift'));
-- Every other execution has a stage.
delete from pipeline_executions e
  where not exists (select from pipeline_stages s where s.org_id = e.org_id and s.execution_id = e.id);

drop index pipeline_executions_live_idx;
drop index pipeline_executions_drift_key;
alter table pipeline_executions drop constraint pipeline_executions_origin;
alter type execution_trigger rename to execution_trigger_after;
create type execution_trigger as enum ('manual', 'drift');
alter table pipeline_executions alter column trigger type execution_trigger using trigger::text::execution_trigger;
drop type execution_trigger_after;
alter table pipeline_executions add constraint pipeline_executions_origin check (
  case trigger
    when 'manual' then starter_id is not null and cause_event_id is null
    when 'drift' then starter_id is null and cause_event_id is not null
  end);
create unique index pipeline_executions_drift_key on pipeline_executions (org_id, pipeline_id)
  where trigger = 'drift' and finished_at is null;

alter type stage_kind rename to stage_kind_after;
create type stage_kind as enum ('validate', 'plan', 'apply');
alter table pipeline_stages alter column kind type stage_kind using kind::text::stage_kind;
drop type stage_kind_after;
