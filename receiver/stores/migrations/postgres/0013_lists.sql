-- Lists are read along indexes in the order of the row key, in a time that does not depend on the
-- size of the record. A list by one column is merged from several ranges of a longer index, so that
-- a callback updates as few indexes as possible.

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
-- Updated when a delivery ends; pending and claimed deliveries have their own indexes.
create index deliveries_ended on deliveries (state, hook, id) where state in ('delivered', 'dead');
