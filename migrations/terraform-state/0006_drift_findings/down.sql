drop table drift_views, drift_rules, drift_changes, drift_sightings, drift_checks;
do $$
begin
  execute format(
    'revoke update (status, severity, last_check_id, last_seen_at, times_seen, opened_at, resolved_at) on drift_logs from %I',
    'board3_' || current_schema() || '_app'
  );
end
$$;
drop index drift_logs_detected_idx, drift_logs_resolved_idx;
alter table drift_logs
  drop constraint drift_logs_fingerprint_key,
  drop constraint drift_logs_resolved_dated,
  drop column fingerprint,
  drop column status,
  drop column severity,
  drop column last_check_id,
  drop column last_seen_at,
  drop column times_seen,
  drop column opened_at,
  drop column resolved_at;
create index drift_logs_check_idx on drift_logs (org_id, check_id, id desc);
drop type drift_cause, drift_severity, drift_status;
