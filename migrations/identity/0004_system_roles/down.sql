-- What hangs on the platform's roles and organization goes with them: those who hold, were offered or signed in by them.
delete from organization_members where role_org_id = '00000000-0000-7000-8000-000000000000';
delete from invitations where role_org_id = '00000000-0000-7000-8000-000000000000';
delete from sessions where org_id = '00000000-0000-7000-8000-000000000000';
delete from permissions where org_id = '00000000-0000-7000-8000-000000000000';
delete from roles where org_id = '00000000-0000-7000-8000-000000000000';
delete from organizations where org_id = '00000000-0000-7000-8000-000000000000';
