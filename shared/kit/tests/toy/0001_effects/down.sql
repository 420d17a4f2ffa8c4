drop table aggregates;
drop table effects;
