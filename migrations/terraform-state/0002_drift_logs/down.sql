drop table drift_logs;
drop type drift_kind;
