-- Lists are read along indexes in the order of the row key, so that a page costs the same however
-- long the record is. A list by one column alone is put together from those of a longer index, so
-- that a callback updates as few indexes as possible.

drop index tasks_by_status;
drop index tasks_by_provider;
create index tasks_by_provider on tasks (provider, status, seq);
drop index tasks_by_reference;
create index tasks_by_reference on tasks (reference, seq) where reference is not null;
drop index tasks_by_account;
create index tasks_by_account on tasks (account, seq) where account <> 'default';
create index callbacks_by_outcome on callbacks (provider, outcome, id);
drop index deliveries_by_hook;
create index deliveries_by_hook on deliveries (hook, id);
-- Written on the way out: what is pending or claimed has indexes of its own.
create index deliveries_ended on deliveries (state, hook, id) where state in ('delivered', 'dead');
