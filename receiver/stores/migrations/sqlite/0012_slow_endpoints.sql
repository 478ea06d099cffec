-- Whether the last attempt of a hook timed out; such a hook may use one worker slot.
alter table endpoints add column timed_out integer not null default 0;
