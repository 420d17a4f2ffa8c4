-- Accounts, organizations, and who may do what in them.
--
-- `app.org` is the organization whose rows a transaction sees, `app.user` the user it acts for.
-- Policies on `app.user` are for SELECT alone: nobody writes into an organization by being a member of it.

-- An account belongs to no organization; the app role never reads a password hash.
create table users (
  id uuid constraint users_pkey primary key,
  -- Lower case.
  email text not null
    constraint users_email_key unique
    constraint users_email_size check (char_length(email) between 3 and 254),
  username text not null
    constraint users_username_key unique
    constraint users_username_size check (char_length(username) between 3 and 39),
  first_name text not null constraint users_first_name_size check (char_length(first_name) between 1 and 100),
  last_name text not null constraint users_last_name_size check (char_length(last_name) between 1 and 100),
  -- `<scheme>$<pepper id>$<hash>`.
  password_hash text not null,
  -- Tokens of older epochs are void.
  epoch bigint not null default 1 constraint users_epoch_positive check (epoch > 0),
  -- Grows with each change of the profile.
  version bigint not null default 1 constraint users_version_positive check (version > 0),
  -- The organization of the latest session.
  last_org_id uuid,
  created_at timestamptz not null default clock_timestamp()
);

create table organizations (
  -- Its own id: an organization is its own tenant.
  org_id uuid constraint organizations_pkey primary key,
  name text not null constraint organizations_name_size check (char_length(name) between 1 and 100),
  slug text not null
    constraint organizations_slug_key unique
    constraint organizations_slug_size check (char_length(slug) between 3 and 39),
  -- Grows with each change of a member or a role; `pv` of tokens.
  permission_version bigint not null default 1
    constraint organizations_permission_version_positive check (permission_version > 0),
  created_at timestamptz not null default clock_timestamp()
);

-- Roles of the platform organization are the system's, and may be given in every organization.
create table roles (
  org_id uuid not null constraint roles_org_id_fkey references organizations (org_id),
  id uuid not null,
  name text not null constraint roles_name_size check (char_length(name) between 1 and 100),
  created_at timestamptz not null default clock_timestamp(),
  constraint roles_pkey primary key (org_id, id),
  constraint roles_name_key unique (org_id, name)
);

-- What a role allows: `<slice>.<resource>.<verb>`, where `*` stands for a whole segment.
create table permissions (
  org_id uuid not null,
  role_id uuid not null,
  permission text not null
    constraint permissions_permission_shape check (permission ~ '^([a-z_]+|\*)\.([a-z_]+|\*)\.([a-z_]+|\*)$'),
  constraint permissions_pkey primary key (org_id, role_id, permission),
  constraint permissions_role_fkey foreign key (org_id, role_id) references roles (org_id, id)
);

create table organization_members (
  org_id uuid not null constraint organization_members_org_id_fkey references organizations (org_id),
  user_id uuid not null constraint organization_members_user_id_fkey references users (id),
  -- The organization's own or the platform's.
  role_org_id uuid not null
    constraint organization_members_role_org_id_near
    check (role_org_id in (org_id, '00000000-0000-7000-8000-000000000000')),
  role_id uuid not null,
  joined_at timestamptz not null default clock_timestamp(),
  constraint organization_members_pkey primary key (org_id, user_id),
  constraint organization_members_role_fkey foreign key (role_org_id, role_id) references roles (org_id, id)
);
create index organization_members_joined_at_idx on organization_members (org_id, joined_at, user_id);
create index organization_members_role_idx on organization_members (org_id, role_org_id, role_id);
-- For login and GetMe, which ask across organizations.
create index organization_members_user_id_idx on organization_members (user_id, joined_at);

select board3.tenant_table('organizations');
select board3.tenant_table('roles');
select board3.tenant_table('permissions');
select board3.tenant_table('organization_members');

create policy own_membership on organization_members for select to board3_identity_app
  using (user_id = (select nullif(current_setting('app.user', true), '')::uuid));

create policy own_membership on organizations for select to board3_identity_app
  using (exists (
    select from organization_members m
    where m.org_id = organizations.org_id
      and m.user_id = (select nullif(current_setting('app.user', true), '')::uuid)
  ));

create policy platform on roles for select to board3_identity_app
  using (org_id = '00000000-0000-7000-8000-000000000000');

create policy own_membership on roles for select to board3_identity_app
  using (exists (
    select from organization_members m
    where m.role_org_id = roles.org_id and m.role_id = roles.id
      and m.user_id = (select nullif(current_setting('app.user', true), '')::uuid)
  ));

create policy platform on permissions for select to board3_identity_app
  using (org_id = '00000000-0000-7000-8000-000000000000');

create policy own_membership on permissions for select to board3_identity_app
  using (exists (
    select from organization_members m
    where m.role_org_id = permissions.org_id and m.role_id = permissions.role_id
      and m.user_id = (select nullif(current_setting('app.user', true), '')::uuid)
  ));

alter table users enable row level security;
alter table users force row level security;
create policy owner_all on users to board3_identity_owner using (true) with check (true);
create policy self on users to board3_identity_app
  using (id = (select nullif(current_setting('app.user', true), '')::uuid))
  with check (id = (select nullif(current_setting('app.user', true), '')::uuid));
create policy colleague on users for select to board3_identity_app
  using (exists (
    select from organization_members m
    where m.user_id = users.id
      and m.org_id = (select nullif(current_setting('app.org', true), '')::uuid)
  ));
grant insert, update (last_org_id),
  select (id, email, username, first_name, last_name, epoch, version, last_org_id, created_at)
  on users to board3_identity_app;
