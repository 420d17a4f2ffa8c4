drop function expired_leases(integer, timestamptz, uuid), job_by_credential(bytea);
drop table stage_logs, stage_attempts, runners, pipeline_stages, pipeline_executions, pipelines, designs;
drop type failure_reason, attempt_status, stage_status, execution_status, execution_trigger, stage_kind, principal_kind;
