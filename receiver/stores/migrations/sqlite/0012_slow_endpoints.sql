-- Whether the last attempt of a hook timed out: then it may use one worker slot.
alter table endpoints add column timed_out integer not null default 0;
