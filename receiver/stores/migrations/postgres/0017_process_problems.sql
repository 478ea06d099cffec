-- The reason why a running process rejected the hooks file at the last SIGHUP.
alter table processes add column problem text;
