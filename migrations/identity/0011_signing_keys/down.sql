drop table signing_key_set;
drop table signing_keys;
