-- Members who are kept out, accounts that are gone, and how colleagues are found by their names.

-- Text as searches compare it: without case, also beyond ASCII where the server knows Unicode (ICU).
do $$
declare
  unicode constant text := coalesce(
    (select 'pg_catalog."und-x-icu"' from pg_collation where collname = 'und-x-icu' limit 1),
    'pg_catalog."default"'
  );
begin
  execute format(
    'create function folded(name text) returns text language sql immutable strict parallel safe
     set search_path = identity, pg_temp as $f$ select lower(name collate %s) collate "C" $f$', unicode);
end
$$;
grant execute on function folded(text) to board3_identity_app;

alter table organization_members
  -- Kept out since then; such a member holds nothing here.
  add column suspended_at timestamptz,
  add column suspended_reason text not null default ''
    constraint organization_members_suspended_reason_size check (char_length(suspended_reason) <= 500),
  -- The user's, as searches compare them. Policies let only leakproof operators into an index, and only what begins
  -- with the organization is an index of its rows: so the names stand here too, kept by the two triggers below.
  add column search_username text collate "C" not null default '',
  add column search_email text collate "C" not null default '',
  add column search_first_name text collate "C" not null default '',
  add column search_last_name text collate "C" not null default '';

create function fill_member_search() returns trigger
language plpgsql security definer set search_path = identity, pg_temp as $$
begin
  select folded(u.username), folded(u.email), folded(u.first_name), folded(u.last_name)
  into new.search_username, new.search_email, new.search_first_name, new.search_last_name
  from users u where u.id = new.user_id;
  -- Nobody: the foreign key refuses the row.
  new.search_username := coalesce(new.search_username, '');
  new.search_email := coalesce(new.search_email, '');
  new.search_first_name := coalesce(new.search_first_name, '');
  new.search_last_name := coalesce(new.search_last_name, '');
  return new;
end
$$;
create trigger fill_member_search before insert on organization_members
  for each row execute function fill_member_search();

create function refresh_member_search() returns trigger
language plpgsql security definer set search_path = identity, pg_temp as $$
begin
  update organization_members set
    search_username = folded(new.username),
    search_email = folded(new.email),
    search_first_name = folded(new.first_name),
    search_last_name = folded(new.last_name)
  where user_id = new.id;
  return null;
end
$$;
create trigger refresh_member_search after update of username, email, first_name, last_name on users
  for each row execute function refresh_member_search();

update organization_members m set
  search_username = folded(u.username),
  search_email = folded(u.email),
  search_first_name = folded(u.first_name),
  search_last_name = folded(u.last_name)
from users u where u.id = m.user_id;

create index organization_members_username_idx on organization_members (org_id, search_username);
create index organization_members_email_idx on organization_members (org_id, search_email);
create index organization_members_first_name_idx on organization_members (org_id, search_first_name);
create index organization_members_last_name_idx on organization_members (org_id, search_last_name);

-- As before, but nobody enters an organization that they are kept out of.
create or replace function login_account(wanted_email text, wanted_org uuid)
returns table (
  user_id uuid, password_hash text, org_id uuid, home_org_id uuid, suspended boolean, deleted boolean
)
language sql stable security definer set search_path = identity, pg_temp as $$
  select u.id, u.password_hash, entered.org_id, home.org_id, u.suspended_at is not null, u.deleted_at is not null
  from users u
  left join lateral (
    select m.org_id from organization_members m
    where m.user_id = u.id and m.suspended_at is null
    order by (m.org_id = u.last_org_id) desc nulls last, m.joined_at, m.org_id
    limit 1
  ) home on true
  left join lateral (
    select m.org_id from organization_members m
    where m.user_id = u.id and m.suspended_at is null and m.org_id = coalesce(wanted_org, home.org_id)
  ) entered on true
  where u.email = wanted_email
$$;

alter table users
  add column suspended_reason text not null default ''
    constraint users_suspended_reason_size check (char_length(suspended_reason) <= 500),
  -- Where a deleted account was known: those organizations are told when its names are overwritten.
  add column former_org_ids uuid[] not null default '{}',
  -- Since when address and names of a deleted account are nobody's.
  add column anonymized_at timestamptz;
create index users_deleted_at_idx on users (deleted_at) where deleted_at is not null and anonymized_at is null;
grant update (username, first_name, last_name, version, former_org_ids) on users to board3_identity_app;

-- What the platform does to an account that it is no colleague of. Accounts are changed from the platform's organization
-- alone: in the name of another, these find nobody.

-- All that an account holds in any organization.
create function account_grants(wanted uuid) returns setof text
language sql stable security definer set search_path = identity, pg_temp as $$
  select distinct p.permission
  from organization_members m
    join permissions p on p.org_id = m.role_org_id and p.role_id = m.role_id
  where m.user_id = wanted
    and current_setting('app.org', true) = '00000000-0000-7000-8000-000000000000'
$$;

-- The next version of the permissions in each organization of an account that is not yet (or no longer) suspended.
-- Organizations are locked in one order, and before the account, as everywhere.
create function renew_account_permissions(wanted uuid, suspend boolean)
returns table (org_id uuid, permission_version bigint)
language plpgsql volatile security definer set search_path = identity, pg_temp as $$
begin
  perform from organizations o
  where o.org_id in (select m.org_id from organization_members m where m.user_id = wanted)
    and exists (select from users u where u.id = wanted and (u.suspended_at is null) = suspend)
    and current_setting('app.org', true) = '00000000-0000-7000-8000-000000000000'
  order by o.org_id for no key update;
  return query
    update organizations o set permission_version = o.permission_version + 1
    where o.org_id in (select m.org_id from organization_members m where m.user_id = wanted)
      and exists (select from users u where u.id = wanted and (u.suspended_at is null) = suspend)
      and current_setting('app.org', true) = '00000000-0000-7000-8000-000000000000'
    returning o.org_id, o.permission_version;
end
$$;

-- Suspends an account or lets it in again; answers its epoch, and whether anything has changed.
create function set_account_suspended(wanted uuid, suspend boolean, why text)
returns table (epoch bigint, changed boolean)
language plpgsql volatile security definer set search_path = identity, pg_temp as $$
declare
  was record;
begin
  select u.epoch, u.suspended_at is not null as suspended into was from users u
  where u.id = wanted and u.deleted_at is null
    and current_setting('app.org', true) = '00000000-0000-7000-8000-000000000000'
  for no key update;
  if not found then
    return;
  end if;
  if was.suspended = suspend then
    return query select was.epoch, false;
    return;
  end if;
  return query
    update users u set
      suspended_at = case when suspend then clock_timestamp() end,
      suspended_reason = case when suspend then why else '' end,
      epoch = u.epoch + suspend::int
    where u.id = wanted
    returning u.epoch, true;
end
$$;

-- Ends all sessions of an account that is suspended; answers those of which an access token may still be about.
create function end_account_sessions(wanted uuid)
returns table (org_id uuid, id uuid)
language sql volatile security definer set search_path = identity, pg_temp as $$
  with ended as (
    update sessions s set revoked_at = clock_timestamp(), successor = null
    where s.user_id = wanted and s.revoked_at is null
      and exists (select from users u where u.id = wanted and u.suspended_at is not null)
      and current_setting('app.org', true) = '00000000-0000-7000-8000-000000000000'
    returning s.org_id, s.id, greatest(s.created_at, s.rotated_at) > clock_timestamp() - interval '10 minutes' as recent
  )
  select e.org_id, e.id from ended e where e.recent
$$;

-- Overwrites what tells of a person in an account that is deleted: `overdue_only` leaves those alone that were deleted
-- within 30 days. Answers the accounts that were overwritten, at most `most`.
create function anonymize_accounts(wanted uuid, overdue_only boolean, most integer)
returns table (id uuid, version bigint, former_org_ids uuid[])
language sql volatile security definer set search_path = identity, pg_temp as $$
  with chosen as (
    select u.id, left(replace(gen_random_uuid()::text, '-', ''), 16) as short
    from users u
    where u.deleted_at is not null and u.anonymized_at is null
      and (wanted is null or u.id = wanted)
      and (not overdue_only or u.deleted_at < clock_timestamp() - interval '30 days')
    order by u.deleted_at limit most for no key update skip locked
  ), devices as (
    update sessions s set device = '', address = '' from chosen where s.user_id = chosen.id
  )
  update users u set
    email = 'deleted-' || chosen.short || '@deleted.invalid',
    username = 'deleted-' || chosen.short,
    first_name = 'Deleted',
    last_name = 'user',
    password_hash = '',
    last_org_id = null,
    suspended_reason = '',
    anonymized_at = clock_timestamp(),
    version = u.version + 1
  from chosen
  where u.id = chosen.id
  returning u.id, u.version, u.former_org_ids
$$;

-- The account of an address that the platform's organization is open to; none for one that is deleted.
create function account_by_email(wanted text) returns uuid
language sql stable security definer set search_path = identity, pg_temp as $$
  select u.id from users u where u.email = wanted and u.deleted_at is null
$$;

grant execute on function
  account_grants(uuid),
  renew_account_permissions(uuid, boolean),
  set_account_suspended(uuid, boolean, text),
  end_account_sessions(uuid),
  anonymize_accounts(uuid, boolean, integer),
  account_by_email(text)
to board3_identity_app;
