create or replace function login_account(wanted_email text, wanted_org uuid)
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

drop function account_grants(uuid), renew_account_permissions(uuid, boolean), set_account_suspended(uuid, boolean, text),
  end_account_sessions(uuid), anonymize_accounts(uuid, boolean, integer), account_by_email(text);
drop index users_deleted_at_idx;
revoke update (username, first_name, last_name, version) on users from board3_identity_app;
alter table users drop column suspended_reason, drop column former_org_ids, drop column anonymized_at;
drop trigger refresh_member_search on users;
drop trigger fill_member_search on organization_members;
drop function refresh_member_search(), fill_member_search();
alter table organization_members
  drop column suspended_at,
  drop column suspended_reason,
  drop column search_username,
  drop column search_email,
  drop column search_first_name,
  drop column search_last_name;
drop function folded(text);
