-- The attempt that stored a file: an attempt after a failed one fetches only the missing files, but
-- a redelivery fetches all files again. 0: stored before this was recorded.
alter table files add column attempt integer not null default 0;
