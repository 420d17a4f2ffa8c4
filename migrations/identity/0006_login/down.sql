-- As before: an account is there or it is not. Those that were kept out cannot be told from others any more, so they go
-- without a password rather than come back in.
update users set password_hash = '', epoch = epoch + 1 where suspended_at is not null or deleted_at is not null;

create or replace function session_state(wanted uuid)
returns table (org_id uuid, user_id uuid, active boolean, epoch bigint)
language sql stable security definer set search_path = identity, pg_temp as $$
  select s.org_id, s.user_id,
    s.revoked_at is null and s.expires_at > clock_timestamp() and s.idle_expires_at > clock_timestamp(),
    u.epoch
  from sessions s join users u on u.id = s.user_id
  where s.id = wanted
$$;

drop function login_account(text, uuid);
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
grant execute on function login_account(text, uuid) to board3_identity_app;

alter table users drop column suspended_at, drop column deleted_at;
