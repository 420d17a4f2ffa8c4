do $$
declare
  worker constant text := format('%I', 'board3_' || current_schema() || '_worker');
begin
  execute format('revoke delete on state_locks from %s', worker);
  execute format(
    'revoke update (released_lock_id, released_by_force, released_reason, released_by_kind, released_by_id, released_at) on states from %s',
    worker
  );
end
$$;
drop table lock_jobs, lock_history;
drop index state_locks_holder_idx, state_locks_created_idx;
alter table state_locks drop column execution_id, drop column maintenance_reason;
drop type lock_ending;
