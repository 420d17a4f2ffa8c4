drop table sessions, api_keys, invitations;
