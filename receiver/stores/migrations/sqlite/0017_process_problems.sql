-- Why a process that is at work rejected the hooks file at the last SIGHUP.
alter table processes add column problem text;
