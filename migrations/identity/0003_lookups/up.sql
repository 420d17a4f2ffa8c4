-- What must be found before the organization is known; nothing else steps over row-level security.
--
-- Each function runs as the owner, answers at most one row for one exact key, and is granted by name to the app role.

-- An account by its e-mail address, and the organization that a login enters:
-- the wanted one, else the last one used, else the oldest membership; null where the user is no member of it.
create function login_account(wanted_email text, wanted_org uuid)
returns table (user_id uuid, password_hash text, org_id uuid, home_org_id uuid)
language sql stable security definer set search_path = identity, pg_temp as $$
  select u.id, u.password_hash, entered.org_id, home.org_id
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

-- A session by its id: whose it is, and whether it stands.
create function session_state(wanted uuid)
returns table (org_id uuid, user_id uuid, active boolean, epoch bigint)
language sql stable security definer set search_path = identity, pg_temp as $$
  select s.org_id, s.user_id,
    s.revoked_at is null and s.expires_at > clock_timestamp() and s.idle_expires_at > clock_timestamp(),
    u.epoch
  from sessions s join users u on u.id = s.user_id
  where s.id = wanted
$$;

-- An API key by its id: whether it stands.
create function api_key_state(wanted uuid)
returns table (org_id uuid, active boolean)
language sql stable security definer set search_path = identity, pg_temp as $$
  select k.org_id, k.revoked_at is null and k.expires_at > clock_timestamp()
  from api_keys k
  where k.id = wanted
$$;

-- An API key by the part of it that is no secret.
create function api_key_by_public_id(wanted text)
returns table (org_id uuid, id uuid, digest bytea, active boolean, expires_at timestamptz)
language sql stable security definer set search_path = identity, pg_temp as $$
  select k.org_id, k.id, k.digest, k.revoked_at is null and k.expires_at > clock_timestamp(), k.expires_at
  from api_keys k
  where k.public_id = wanted
$$;

-- The organization of an invitation, by the id that its token holds.
create function invitation_org(wanted uuid) returns uuid
language sql stable security definer set search_path = identity, pg_temp as $$
  select i.org_id from invitations i where i.id = wanted
$$;

grant execute on function
  login_account(text, uuid),
  session_state(uuid),
  api_key_state(uuid),
  api_key_by_public_id(text),
  invitation_org(uuid)
to board3_identity_app;
