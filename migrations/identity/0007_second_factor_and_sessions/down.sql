drop index sessions_standing_idx;
alter table sessions drop column address;
revoke update (password_hash, epoch) on users from board3_identity_app;
drop function own_password();
drop table recovery_codes;
drop table second_factors;
