-- The second factor of an account, and what its owner is shown of sessions.

-- At most one factor per user: a secret that authenticator applications make codes of (RFC 6238).
create table second_factors (
  user_id uuid
    constraint second_factors_pkey primary key
    constraint second_factors_user_id_fkey references users (id),
  -- Sealed for this user.
  secret bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  -- In force from here on; null while no code was seen.
  confirmed_at timestamptz,
  -- The 30 s that the last accepted code was of: none of them or before is accepted again.
  last_step bigint,
  constraint second_factors_confirmed_by_code check (confirmed_at is null or last_step is not null)
);

-- A row is a code that still works.
create table recovery_codes (
  user_id uuid not null
    constraint recovery_codes_user_id_fkey references second_factors (user_id) on delete cascade,
  code_hash bytea not null constraint recovery_codes_code_hash_size check (octet_length(code_hash) = 32),
  constraint recovery_codes_pkey primary key (user_id, code_hash)
);

alter table second_factors enable row level security;
alter table second_factors force row level security;
create policy owner_all on second_factors to board3_identity_owner using (true) with check (true);
create policy self on second_factors to board3_identity_app
  using (user_id = (select nullif(current_setting('app.user', true), '')::uuid))
  with check (user_id = (select nullif(current_setting('app.user', true), '')::uuid));
grant select, insert, update, delete on second_factors to board3_identity_app;

alter table recovery_codes enable row level security;
alter table recovery_codes force row level security;
create policy owner_all on recovery_codes to board3_identity_owner using (true) with check (true);
create policy self on recovery_codes to board3_identity_app
  using (user_id = (select nullif(current_setting('app.user', true), '')::uuid))
  with check (user_id = (select nullif(current_setting('app.user', true), '')::uuid));
grant select, insert, delete on recovery_codes to board3_identity_app;

-- The password of the user that the transaction acts for, and of nobody else.
create function own_password()
returns table (password_hash text, epoch bigint)
language sql stable security definer set search_path = identity, pg_temp as $$
  select u.password_hash, u.epoch
  from users u
  where u.id = (select nullif(current_setting('app.user', true), '')::uuid)
$$;
grant execute on function own_password() to board3_identity_app;

grant update (password_hash, epoch) on users to board3_identity_app;

-- Where the session was last continued from; empty for those from before it was noted.
alter table sessions
  add column address text not null default ''
    constraint sessions_address_size check (char_length(address) <= 200);

-- A user's sessions in all organizations, newest first.
create index sessions_standing_idx on sessions (user_id, created_at desc, id desc) where revoked_at is null;
