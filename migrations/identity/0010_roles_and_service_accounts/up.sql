-- Roles that organizations make, and callers that are no persons.

alter table roles
  add column description text not null default ''
    constraint roles_description_size check (char_length(description) <= 500),
  -- Grows with each change; the etag.
  add column version bigint not null default 1 constraint roles_version_positive check (version > 0);

update roles set description = system.description
from (values
  ('owner', 'Holds everything there is and will be'),
  ('admin', 'Runs the organization: its people, keys, designs, states and pipelines'),
  ('editor', 'Changes designs, states and pipelines'),
  ('operator', 'Runs pipelines and looks after states'),
  ('viewer', 'Reads')
) as system (name, description)
where roles.org_id = '00000000-0000-7000-8000-000000000000' and roles.name = system.name;

-- Everybody may look at what they may do, and at the roles that it comes from.
insert into permissions (org_id, role_id, permission)
select r.org_id, r.id, p.permission
from roles r, (values ('identity.permission.read'), ('identity.role.read')) as p (permission)
where r.org_id = '00000000-0000-7000-8000-000000000000' and r.name in ('editor', 'operator', 'viewer');

create table service_accounts (
  org_id uuid not null constraint service_accounts_org_id_fkey references organizations (org_id),
  id uuid not null,
  name text not null constraint service_accounts_name_size check (char_length(name) between 1 and 100),
  description text not null constraint service_accounts_description_size check (char_length(description) <= 500),
  -- The organization's own or the platform's.
  role_org_id uuid not null
    constraint service_accounts_role_org_id_near
    check (role_org_id in (org_id, '00000000-0000-7000-8000-000000000000')),
  -- Null for a disabled one whose role is gone.
  role_id uuid,
  created_at timestamptz not null default clock_timestamp(),
  disabled_at timestamptz,
  constraint service_accounts_pkey primary key (org_id, id),
  constraint service_accounts_name_key unique (org_id, name),
  constraint service_accounts_role_fkey foreign key (role_org_id, role_id) references roles (org_id, id),
  constraint service_accounts_role_there check (role_id is not null or disabled_at is not null)
);
select board3.tenant_table('service_accounts');

alter table api_keys
  -- Whose role cuts the scopes; null: the creator's does.
  add column service_account_id uuid,
  add constraint api_keys_service_account_fkey
    foreign key (org_id, service_account_id) references service_accounts (org_id, id);

-- Who has a role, for its deletion.
create index service_accounts_role_idx on service_accounts (org_id, role_org_id, role_id);
create index invitations_role_idx on invitations (org_id, role_org_id, role_id);

-- Lists, newest first; most ask for keys that stand.
create index api_keys_standing_idx on api_keys (org_id, created_at, id) where revoked_at is null;
create index api_keys_service_account_idx on api_keys (org_id, service_account_id, created_at, id);
