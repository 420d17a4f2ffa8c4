drop table resource_drifts;
drop type resource_drift_kind;
