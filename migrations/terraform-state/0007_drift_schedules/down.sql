drop function due_drift_schedules(uuid, integer);
drop table drift_runs, drift_schedules;
drop type drift_run_outcome;
