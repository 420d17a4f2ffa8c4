-- Organizations that change and end, the domains that they own, and invitations that are taken back.

alter table organizations
  -- Grows with each change of the name, the slug, the domains or the deletion; what the etag is of.
  add column version bigint not null default 1 constraint organizations_version_positive check (version > 0),
  -- Since when it is deleted. The rows stay, and the slug stays taken; what opens an organization refuses this one.
  add column deleted_at timestamptz;

-- A domain belongs to one organization: the one that proved last that it reads the domain's mailboxes.
create table organization_domains (
  org_id uuid not null constraint organization_domains_org_id_fkey references organizations (org_id),
  -- Lower case.
  domain text not null
    constraint organization_domains_domain_key unique
    constraint organization_domains_domain_size check (char_length(domain) between 3 and 253),
  verified_at timestamptz not null default clock_timestamp(),
  constraint organization_domains_pkey primary key (org_id, domain)
);
select board3.tenant_table('organization_domains');

create policy own_membership on organization_domains for select to board3_identity_app
  using (exists (
    select from organization_members m
    where m.org_id = organization_domains.org_id
      and m.user_id = (select nullif(current_setting('app.user', true), '')::uuid)
  ));

-- Makes a domain the transaction's organization's, whoever had it, and answers whose it was if it was another's.
-- Both organizations are changed by it; they are locked in one order, so that two that take from each other both end.
-- Who calls it has locked the domain's name before, so that whoever comes second sees whose it is by then.
create function claim_domain(wanted text) returns uuid
language plpgsql volatile security definer set search_path = identity, pg_temp as $$
declare
  claimant constant uuid := nullif(current_setting('app.org', true), '')::uuid;
  previous uuid;
begin
  select d.org_id into previous from organization_domains d where d.domain = wanted;
  perform from organizations o where o.org_id in (claimant, previous) order by o.org_id for no key update;
  insert into organization_domains (org_id, domain) values (claimant, wanted)
  on conflict on constraint organization_domains_domain_key
    do update set org_id = excluded.org_id, verified_at = excluded.verified_at;
  update organizations o set version = o.version + 1 where o.org_id in (claimant, previous);
  return nullif(previous, claimant);
end
$$;
grant execute on function claim_domain(text) to board3_identity_app;

alter table invitations
  -- Since when it is void.
  add column revoked_at timestamptz;
drop index invitations_created_at_idx;
create index invitations_open_idx on invitations (org_id, created_at, id)
  where accepted_at is null and revoked_at is null;

-- For ListOrganizations, whose pages end between memberships of one moment.
drop index organization_members_user_id_idx;
create index organization_members_user_id_idx on organization_members (user_id, joined_at, org_id);

-- An account by its e-mail address, and the organization that a login enters:
-- the wanted one, else the last one used, else the oldest membership; null where the user is no member of it.
-- Nobody enters an organization that is deleted or that they are kept out of.
create or replace function login_account(wanted_email text, wanted_org uuid)
returns table (
  user_id uuid, password_hash text, org_id uuid, home_org_id uuid, suspended boolean, deleted boolean
)
language sql stable security definer set search_path = identity, pg_temp as $$
  select u.id, u.password_hash, entered.org_id, home.org_id, u.suspended_at is not null, u.deleted_at is not null
  from users u
  left join lateral (
    select m.org_id from organization_members m
    join organizations o on o.org_id = m.org_id and o.deleted_at is null
    where m.user_id = u.id and m.suspended_at is null
    order by (m.org_id = u.last_org_id) desc nulls last, m.joined_at, m.org_id
    limit 1
  ) home on true
  left join lateral (
    select m.org_id from organization_members m
    join organizations o on o.org_id = m.org_id and o.deleted_at is null
    where m.user_id = u.id and m.suspended_at is null and m.org_id = coalesce(wanted_org, home.org_id)
  ) entered on true
  where u.email = wanted_email
$$;

-- An API key by its id: whether it stands; none stands of an organization that is deleted.
create or replace function api_key_state(wanted uuid)
returns table (org_id uuid, active boolean)
language sql stable security definer set search_path = identity, pg_temp as $$
  select k.org_id, k.revoked_at is null and k.expires_at > clock_timestamp() and o.deleted_at is null
  from api_keys k join organizations o on o.org_id = k.org_id
  where k.id = wanted
$$;

-- Domains that somebody said are their organization's, until a mailbox of theirs says so too.
create table domain_verifications (
  org_id uuid not null constraint domain_verifications_org_id_fkey references organizations (org_id),
  id uuid not null,
  -- Lower case.
  domain text not null constraint domain_verifications_domain_size check (char_length(domain) between 3 and 253),
  token_hash bytea not null constraint domain_verifications_token_hash_size check (octet_length(token_hash) = 32),
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  constraint domain_verifications_pkey primary key (org_id, id)
);
create index domain_verifications_domain_idx on domain_verifications (org_id, domain);
create index domain_verifications_expires_at_idx on domain_verifications (org_id, expires_at);
select board3.tenant_table('domain_verifications');
