drop function sign_up_state(text, text, text);
revoke update (password_hash, epoch) on users from board3_identity_app;
alter table users drop column verified_at;
drop table password_resets, sign_ups, outbound_messages;
