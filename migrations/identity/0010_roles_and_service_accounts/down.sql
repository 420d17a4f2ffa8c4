drop index api_keys_service_account_idx, api_keys_standing_idx, invitations_role_idx;
alter table api_keys drop column service_account_id;
drop table service_accounts;
delete from permissions
where org_id = '00000000-0000-7000-8000-000000000000'
  and role_id in (
    '00000000-0000-7000-8000-000000000003',
    '00000000-0000-7000-8000-000000000004',
    '00000000-0000-7000-8000-000000000005'
  )
  and permission in ('identity.permission.read', 'identity.role.read');
alter table roles drop column description, drop column version;
