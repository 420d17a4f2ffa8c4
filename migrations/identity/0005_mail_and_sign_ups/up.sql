-- What leaves by e-mail, and what waits for its answer: sign-ups, and passwords to be set anew.

-- Messages, written in the transaction that causes them and drained by the mailer.
-- The app role only inserts: whom a message is for and what it says are sealed, and gone once it is sent.
create table outbound_messages (
  id uuid constraint outbound_messages_pkey primary key,
  -- What it is, for figures: `verify_email`, `password_reset` and so on.
  kind text not null constraint outbound_messages_kind_size check (char_length(kind) between 1 and 50),
  -- Recipient, subject and text, sealed.
  content bytea,
  -- How often the mailer took it in hand.
  attempts integer not null default 0 constraint outbound_messages_attempts_natural check (attempts >= 0),
  -- While it is in somebody's hand: when that hand counts as dead.
  next_attempt_at timestamptz not null default clock_timestamp(),
  created_at timestamptz not null default clock_timestamp(),
  sent_at timestamptz,
  given_up_at timestamptz,
  constraint outbound_messages_one_end check (num_nonnulls(sent_at, given_up_at) <= 1),
  constraint outbound_messages_content_until_sent check ((content is null) = (sent_at is not null))
);
create index outbound_messages_due_idx on outbound_messages (next_attempt_at)
  where sent_at is null and given_up_at is null;
create index outbound_messages_sent_at_idx on outbound_messages (sent_at) where sent_at is not null;
grant insert on outbound_messages to board3_identity_app;
grant select, delete, update (content, attempts, next_attempt_at, sent_at, given_up_at)
  on outbound_messages to board3_identity_worker;

-- Accounts to be, until their address is proven. They belong to the platform organization.
create table sign_ups (
  org_id uuid not null,
  id uuid not null,
  -- Keyed hash of the address: the first who proves it ends the others' waiting.
  address_hash bytea not null constraint sign_ups_address_hash_size check (octet_length(address_hash) = 32),
  token_hash bytea not null constraint sign_ups_token_hash_size check (octet_length(token_hash) = 32),
  -- The account, its password hashed, sealed.
  content bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  constraint sign_ups_pkey primary key (org_id, id)
);
create index sign_ups_address_hash_idx on sign_ups (org_id, address_hash);
create index sign_ups_expires_at_idx on sign_ups (org_id, expires_at);

-- Passwords that may be set anew, by whoever has the token. They belong to the platform organization.
create table password_resets (
  org_id uuid not null,
  id uuid not null,
  -- Null where nobody can sign in with the address: whether somebody can is not told by what is written.
  user_id uuid constraint password_resets_user_id_fkey references users (id),
  token_hash bytea not null constraint password_resets_token_hash_size check (octet_length(token_hash) = 32),
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  constraint password_resets_pkey primary key (org_id, id)
);
create index password_resets_user_id_idx on password_resets (org_id, user_id);
create index password_resets_expires_at_idx on password_resets (org_id, expires_at);

select board3.tenant_table('sign_ups', true);
select board3.tenant_table('password_resets', true);

-- When the address was proven; before that there is no user.
alter table users add column verified_at timestamptz not null default clock_timestamp();
grant select (verified_at), update (password_hash, epoch) on users to board3_identity_app;

-- Whether somebody has what a sign-up asks for.
create function sign_up_state(wanted_email text, wanted_username text, wanted_slug text)
returns table (email_taken boolean, username_taken boolean, slug_taken boolean)
language sql stable security definer set search_path = identity, pg_temp as $$
  select
    exists (select from users u where u.email = wanted_email),
    exists (select from users u where u.username = wanted_username),
    exists (select from organizations o where o.slug = wanted_slug)
$$;

grant execute on function sign_up_state(text, text, text) to board3_identity_app;
