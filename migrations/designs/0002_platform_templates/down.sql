update designs set template_org_id = null, template_id = null
where template_org_id = '00000000-0000-7000-8000-000000000000';
delete from templates where org_id = '00000000-0000-7000-8000-000000000000';
