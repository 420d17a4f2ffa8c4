drop function search_templates(text, integer);
drop table user_names, resources, design_versions, designs, templates;
drop type principal_kind, design_status, cloud_provider;
