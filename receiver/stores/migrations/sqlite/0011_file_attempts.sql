-- The attempt that made a file: an attempt after a failed one fetches only what is missing, but
-- a redelivery fetches everything again. 0: made before this was recorded.
alter table files add column attempt integer not null default 0;
