-- The platform organization, which owns what belongs to nobody, and the roles that every organization can give.

insert into organizations (org_id, name, slug)
values ('00000000-0000-7000-8000-000000000000', 'Board3', 'board3-platform');

insert into roles (org_id, id, name)
select '00000000-0000-7000-8000-000000000000', id::uuid, name
from (values
  ('00000000-0000-7000-8000-000000000001', 'owner'),
  ('00000000-0000-7000-8000-000000000002', 'admin'),
  ('00000000-0000-7000-8000-000000000003', 'editor'),
  ('00000000-0000-7000-8000-000000000004', 'operator'),
  ('00000000-0000-7000-8000-000000000005', 'viewer')
) as system (id, name);

insert into permissions (org_id, role_id, permission)
select r.org_id, r.id, p.permission
from (values
  ('owner', '*.*.*'),
  ('admin', 'identity.*.*'),
  ('admin', 'designs.*.*'),
  ('admin', 'audit.*.read'),
  ('editor', 'identity.member.read'),
  ('editor', 'designs.*.*'),
  ('operator', 'identity.member.read'),
  ('operator', 'designs.*.read'),
  ('operator', 'designs.design.publish'),
  ('viewer', 'identity.member.read'),
  ('viewer', 'designs.*.read')
) as p (role, permission)
join roles r on r.org_id = '00000000-0000-7000-8000-000000000000' and r.name = p.role;
