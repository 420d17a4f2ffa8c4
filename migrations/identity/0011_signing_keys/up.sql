-- The keys that access tokens are signed with. They belong to the installation, not to an organization.

create table signing_keys (
  -- The order in which they were made.
  number bigint generated always as identity,
  -- PASERK k4.pid and k4.public.
  kid text not null,
  public_key text not null,
  -- Sealed for its kid; gone once the key signs nothing more.
  seed bytea,
  state text not null,
  -- Whether it is in the set that verifiers are given.
  believed boolean not null default true,
  created_at timestamptz not null default clock_timestamp(),
  activates_at timestamptz not null,
  retired_at timestamptz,
  constraint signing_keys_pkey primary key (kid),
  constraint signing_keys_number_key unique (number),
  constraint signing_keys_kid_shape check (kid ~ '^k4\.pid\.[A-Za-z0-9_-]{44}$'),
  constraint signing_keys_state_known check (state in ('pending', 'active', 'retired', 'revoked')),
  constraint signing_keys_seed_while_it_signs check ((seed is not null) = (state in ('pending', 'active'))),
  constraint signing_keys_retired_at_end check ((retired_at is not null) = (state in ('retired', 'revoked'))),
  constraint signing_keys_revoked_unbelieved check (not (believed and state = 'revoked'))
);
create unique index signing_keys_active_idx on signing_keys ((true)) where state = 'active';
create index signing_keys_believed_idx on signing_keys (number) where believed;

-- One row, which whoever changes the keys holds locked. The version grows with each change of the set.
create table signing_key_set (
  whole boolean not null default true,
  version bigint not null,
  constraint signing_key_set_pkey primary key (whole),
  constraint signing_key_set_one_row check (whole)
);
insert into signing_key_set (version) values (0);

grant select, insert, update on signing_keys to board3_identity_app;
grant select, update on signing_key_set to board3_identity_app;
