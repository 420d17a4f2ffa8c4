-- Accounts that are kept out or gone, for everything that lets somebody in.

alter table users
  -- Since when nobody signs in to the account; sessions of it are void.
  add column suspended_at timestamptz,
  -- Since when the account is gone for everybody.
  add column deleted_at timestamptz;
grant select (suspended_at, deleted_at), update (suspended_at, deleted_at) on users to board3_identity_app;

-- An account by its e-mail address, and the organization that a login enters:
-- the wanted one, else the last one used, else the oldest membership; null where the user is no member of it.
-- One that is suspended or deleted is answered like any other: the same work is done for it.
drop function login_account(text, uuid);
create function login_account(wanted_email text, wanted_org uuid)
returns table (
  user_id uuid, password_hash text, org_id uuid, home_org_id uuid, suspended boolean, deleted boolean
)
language sql stable security definer set search_path = identity, pg_temp as $$
  select u.id, u.password_hash, entered.org_id, home.org_id, u.suspended_at is not null, u.deleted_at is not null
  from users u
  left join lateral (
    select m.org_id from organization_members m
    where m.user_id = u.id
    order by (m.org_id = u.last_org_id) desc nulls last, m.joined_at, m.org_id
    limit 1
  ) home on true
  left join lateral (
    select m.org_id from organization_members m
    where m.user_id = u.id and m.org_id = coalesce(wanted_org, home.org_id)
  ) entered on true
  where u.email = wanted_email
$$;
grant execute on function login_account(text, uuid) to board3_identity_app;

-- A session by its id: whose it is, and whether it stands; none stands of an account that is suspended or deleted.
create or replace function session_state(wanted uuid)
returns table (org_id uuid, user_id uuid, active boolean, epoch bigint)
language sql stable security definer set search_path = identity, pg_temp as $$
  select s.org_id, s.user_id,
    s.revoked_at is null and s.expires_at > clock_timestamp() and s.idle_expires_at > clock_timestamp()
      and u.suspended_at is null and u.deleted_at is null,
    u.epoch
  from sessions s join users u on u.id = s.user_id
  where s.id = wanted
$$;
