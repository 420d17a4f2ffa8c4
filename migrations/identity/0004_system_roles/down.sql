delete from permissions where org_id = '00000000-0000-7000-8000-000000000000';
delete from roles where org_id = '00000000-0000-7000-8000-000000000000';
delete from organizations where org_id = '00000000-0000-7000-8000-000000000000';
