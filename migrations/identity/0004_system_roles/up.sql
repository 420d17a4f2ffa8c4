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
  ('admin', 'terraform_state.*.*'),
  ('admin', 'pipelines.*.*'),
  ('admin', 'audit.*.read'),
  ('admin', 'audit.notification.*'),
  ('editor', 'identity.member.read'),
  ('editor', 'designs.*.*'),
  ('editor', 'terraform_state.*.read'),
  ('editor', 'terraform_state.*.write'),
  ('editor', 'terraform_state.state.download'),
  ('editor', 'pipelines.*.read'),
  ('editor', 'pipelines.pipeline.write'),
  ('editor', 'pipelines.pipeline.run'),
  ('editor', 'pipelines.execution.cancel'),
  ('editor', 'audit.notification.*'),
  ('operator', 'identity.member.read'),
  ('operator', 'designs.*.read'),
  ('operator', 'designs.design.publish'),
  ('operator', 'terraform_state.*.read'),
  ('operator', 'terraform_state.lock.*'),
  ('operator', 'terraform_state.drift.write'),
  ('operator', 'pipelines.*.read'),
  ('operator', 'pipelines.pipeline.run'),
  ('operator', 'pipelines.execution.cancel'),
  ('operator', 'audit.notification.*'),
  ('viewer', 'identity.member.read'),
  ('viewer', 'designs.*.read'),
  ('viewer', 'terraform_state.*.read'),
  ('viewer', 'pipelines.*.read'),
  ('viewer', 'audit.notification.*')
) as p (role, permission)
join roles r on r.org_id = '00000000-0000-7000-8000-000000000000' and r.name = p.role;
