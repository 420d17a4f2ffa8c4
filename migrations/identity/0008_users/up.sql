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
