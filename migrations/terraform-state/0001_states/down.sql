drop table state_chunks, state_versions, state_locks, states, designs;
drop type principal_kind, state_version_kind;
