-- Roles, schemas and the tenant-table rule of every slice.
--
-- An administrator's login runs this once per database, before any migration; running it again changes nothing.
-- It promises that no role of a slice is superuser, bypasses row-level security, makes roles, or holds a right in
-- another slice, and it stops with an error where somebody has given one that.
--
-- Passwords and pg_hba rules are the operator's: the login roles are made without a password.
-- Functions grant nothing to PUBLIC, so a slice's own SECURITY DEFINER functions are granted by name.

begin;
set local client_min_messages = warning;

-- Roles belong to the cluster, locks to the database: two databases prepared at once meet on the roles' unique names
-- (handled below), two runs on one database wait here for each other.
select pg_advisory_xact_lock(hashtextextended('board3.slices', 0));

do $$
declare
  slices constant text[] := array[
    'identity',
    'designs',
    'terraform_state',
    'pipelines',
    'audit'
  ];
  slice text;
  kind text;
  role_name text;
  option text;
begin
  execute format('revoke all on database %I from public', current_database());
  revoke all on schema public from public;

  create schema if not exists board3;
  revoke all on schema board3 from public;

  -- The migrate login owns nothing and inherits nothing; it enters an owner by SET ROLE.
  begin
    if to_regrole('board3_migrate') is null then
      create role board3_migrate login noinherit;
    end if;
  exception when duplicate_object or unique_violation then null;
  end;
  execute format('grant connect on database %I to board3_migrate', current_database());

  foreach slice in array slices loop
    foreach kind in array array['owner', 'app', 'worker'] loop
      role_name := format('board3_%s_%s', slice, kind);

      begin
        if to_regrole(quote_ident(role_name)) is null then
          execute format('create role %I %s', role_name, case kind when 'owner' then 'nologin' else 'login' end);
          if kind = 'owner' then
            execute format('grant %I to board3_migrate', role_name);
          end if;
        end if;
      exception when duplicate_object or unique_violation then null;
      end;

      if kind <> 'owner' then
        execute format('grant connect on database %I to %I', current_database(), role_name);
        -- A transaction that its service forgot ends by itself, a little after the longest deadline.
        foreach option in array array['search_path=' || slice, 'idle_in_transaction_session_timeout=75s'] loop
          if not exists (
            select from pg_db_role_setting
            where setrole = to_regrole(quote_ident(role_name)) and setdatabase = 0 and option = any (setconfig)
          ) then
            execute format('alter role %I set %s = %L', role_name, split_part(option, '=', 1), split_part(option, '=', 2));
          end if;
        end loop;

        -- Services tell a deadlock or a timeout from other failures by the server's English words.
        -- Only a superuser may set this; another administrator has a server that speaks English (lc_messages) itself.
        begin
          if not exists (
            select from pg_db_role_setting
            where setrole = to_regrole(quote_ident(role_name)) and setdatabase = 0 and 'lc_messages=C' = any (setconfig)
          ) then
            execute format('alter role %I set lc_messages = ''C''', role_name);
          end if;
        exception when insufficient_privilege then null;
        end;
      end if;
    end loop;

    -- An administrator who is no superuser makes objects for an owner only as its member.
    role_name := format('board3_%s_owner', slice);
    if not pg_has_role(current_user, role_name, 'member') then
      execute format('grant %I to current_user', role_name);
    end if;

    execute format('create schema if not exists %I authorization %I', slice, role_name);
    execute format('revoke all on schema %I from public', slice);
    execute format('grant usage on schema %I to %I, %I', slice,
      format('board3_%s_app', slice), format('board3_%s_worker', slice));
    execute format('alter default privileges for role %I revoke execute on functions from public', role_name);
    execute format('alter default privileges for role %I revoke usage on types from public', role_name);
    execute format('grant usage on schema board3 to %I, %I, %I', role_name,
      format('board3_%s_app', slice), format('board3_%s_worker', slice));
  end loop;

  select rolname into role_name from pg_roles
  where rolname ~ '^board3_(migrate|.+_(owner|app|worker))$'
    and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)
  limit 1;
  if found then
    raise exception 'role % has an attribute that would step over row-level security', role_name
      using hint = 'ALTER ROLE … NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION';
  end if;

  select format('%s is a member of %s', m.rolname, r.rolname) into option
  from pg_auth_members a join pg_roles m on m.oid = a.member join pg_roles r on r.oid = a.roleid
  where m.rolname ~ '^board3_(migrate|.+_(owner|app|worker))$'
    and (m.rolname <> 'board3_migrate' or r.rolname !~ '^board3_.+_owner$')
  limit 1;
  if found then
    raise exception '%: roles of slices are members of nothing', option;
  end if;
end
$$;

-- Namespaces this installation's Redis keys and channels; made once, the same for every slice of the database.
create table if not exists board3.instance (
  id text not null default substr(replace(gen_random_uuid()::text, '-', ''), 1, 12),
  constraint instance_id_shape check (id ~ '^[a-z0-9]{4,32}$')
);
create unique index if not exists instance_one_row on board3.instance ((true));
insert into board3.instance default values on conflict do nothing;

-- Makes `t` a tenant table: row-level security enabled and forced, the tenant's policy for the slice's app role
-- (and its worker role if asked), everything for the owner, who migrates.
create or replace function board3.tenant_table(t regclass, worker boolean default false) returns void
language plpgsql security invoker set search_path = pg_catalog, pg_temp as $$
declare
  slice constant text := (
    select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = t
  );
  owner constant text := format('%I', 'board3_' || slice || '_owner');
  tenants constant text := format('%I', 'board3_' || slice || '_app')
    || case when worker then format(', %I', 'board3_' || slice || '_worker') else '' end;
  own_rows constant text := 'org_id = (select nullif(current_setting(''app.org'', true), '''')::uuid)';
begin
  if not exists (
    select from pg_attribute
    where attrelid = t and attname = 'org_id' and atttypid = 'uuid'::regtype and attnotnull and not attisdropped
  ) then
    raise exception '% has no column org_id uuid not null', t;
  end if;
  execute format('alter table %s enable row level security', t);
  execute format('alter table %s force row level security', t);
  execute format('create policy tenant on %s to %s using (%s) with check (%s)', t, tenants, own_rows, own_rows);
  execute format('create policy owner_all on %s to %s using (true) with check (true)', t, owner);
  execute format('grant select, insert, update, delete on %s to %s', t, tenants);
end
$$;

do $$
declare
  role_name text;
begin
  revoke all on function board3.tenant_table(regclass, boolean) from public;
  for role_name in select rolname from pg_roles where rolname ~ '^board3_.+_(owner|app|worker)$' loop
    execute format('grant select on board3.instance to %I', role_name);
    if role_name like '%\_owner' then
      execute format('grant execute on function board3.tenant_table(regclass, boolean) to %I', role_name);
    end if;
  end loop;
end
$$;

commit;
