-- As before: an organization is there, with all who are in it. Those that were deleted cannot be told from others any
-- more, so nobody is left in them.
delete from organization_members where org_id in (select org_id from organizations where deleted_at is not null);

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

drop index organization_members_user_id_idx;
create index organization_members_user_id_idx on organization_members (user_id, joined_at);

-- What was taken back stays so.
delete from invitations where revoked_at is not null;
drop index invitations_open_idx;
create index invitations_created_at_idx on invitations (org_id, created_at, id);
alter table invitations drop column revoked_at;

create or replace function api_key_state(wanted uuid)
returns table (org_id uuid, active boolean)
language sql stable security definer set search_path = identity, pg_temp as $$
  select k.org_id, k.revoked_at is null and k.expires_at > clock_timestamp()
  from api_keys k
  where k.id = wanted
$$;

drop function claim_domain(text);
drop table domain_verifications, organization_domains;
alter table organizations drop column version, drop column deleted_at;
