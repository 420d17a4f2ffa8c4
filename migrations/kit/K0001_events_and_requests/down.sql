drop table requests;
drop table dead_letters;
drop table cursors;
drop table inbox;
drop table relay_head;
drop table outbox;
