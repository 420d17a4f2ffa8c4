-- What callers hold: sessions with their refresh tokens, API keys, invitations.
-- Of each secret there is a keyed hash and nothing else, save a sealed successor for 10 seconds of repeats.

-- A session is the family of its refresh tokens: one generation is current, the one before is remembered.
-- Sessions of a user without an organization belong to the platform organization.
create table sessions (
  org_id uuid not null constraint sessions_org_id_fkey references organizations (org_id),
  id uuid not null constraint sessions_id_key unique,
  user_id uuid not null constraint sessions_user_id_fkey references users (id),
  device text not null constraint sessions_device_size check (char_length(device) <= 200),
  generation bigint not null default 1 constraint sessions_generation_positive check (generation > 0),
  token_hash bytea not null constraint sessions_token_hash_size check (octet_length(token_hash) = 32),
  previous_hash bytea constraint sessions_previous_hash_size check (octet_length(previous_hash) = 32),
  -- The current token, sealed: the answer to whoever repeats the previous one in time.
  successor bytea,
  rotated_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  last_seen_at timestamptz not null default clock_timestamp(),
  idle_expires_at timestamptz not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  constraint sessions_pkey primary key (org_id, id)
);
create index sessions_user_id_idx on sessions (org_id, user_id, created_at);

create table api_keys (
  org_id uuid not null constraint api_keys_org_id_fkey references organizations (org_id),
  id uuid not null constraint api_keys_id_key unique,
  public_id text not null
    constraint api_keys_public_id_key unique
    constraint api_keys_public_id_size check (char_length(public_id) = 12),
  digest bytea not null constraint api_keys_digest_size check (octet_length(digest) = 32),
  name text not null constraint api_keys_name_size check (char_length(name) between 1 and 100),
  -- Cut by what the creator may do at the time of use.
  scopes text[] not null constraint api_keys_scopes_size check (cardinality(scopes) between 1 and 200),
  creator_id uuid not null constraint api_keys_creator_id_fkey references users (id),
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  -- To the minute.
  last_used_at timestamptz,
  revoked_at timestamptz,
  constraint api_keys_pkey primary key (org_id, id)
);
create index api_keys_created_at_idx on api_keys (org_id, created_at, id);

create table invitations (
  org_id uuid not null constraint invitations_org_id_fkey references organizations (org_id),
  id uuid not null constraint invitations_id_key unique,
  -- Lower case.
  email text not null constraint invitations_email_size check (char_length(email) between 3 and 254),
  role_org_id uuid not null
    constraint invitations_role_org_id_near
    check (role_org_id in (org_id, '00000000-0000-7000-8000-000000000000')),
  role_id uuid not null,
  token_hash bytea not null constraint invitations_token_hash_size check (octet_length(token_hash) = 32),
  inviter_user_id uuid constraint invitations_inviter_user_id_fkey references users (id),
  inviter_key_id uuid,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  accepted_at timestamptz,
  constraint invitations_pkey primary key (org_id, id),
  constraint invitations_role_fkey foreign key (role_org_id, role_id) references roles (org_id, id),
  constraint invitations_inviter_key_fkey foreign key (org_id, inviter_key_id) references api_keys (org_id, id),
  constraint invitations_one_inviter check (num_nonnulls(inviter_user_id, inviter_key_id) = 1)
);
create index invitations_created_at_idx on invitations (org_id, created_at, id);

select board3.tenant_table('sessions');
select board3.tenant_table('api_keys');
select board3.tenant_table('invitations');

create policy own_session on sessions for select to board3_identity_app
  using (user_id = (select nullif(current_setting('app.user', true), '')::uuid));
