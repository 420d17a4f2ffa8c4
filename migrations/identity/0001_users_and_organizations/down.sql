drop table users, organizations, roles, permissions, organization_members;
