-- What a toy consumer did: nothing keeps it from doing the same twice, so that a test sees it.
create table effects (
  id bigint generated always as identity constraint effects_pkey primary key,
  org_id uuid not null,
  consumer text not null,
  event_id uuid not null
);
select board3.tenant_table('effects', true);

-- Aggregates whose events must keep the order of their versions.
create table aggregates (
  id integer constraint aggregates_pkey primary key,
  version bigint not null default 0
);
insert into aggregates (id) select generate_series(1, 20);
grant select, update on aggregates to board3_audit_app;
