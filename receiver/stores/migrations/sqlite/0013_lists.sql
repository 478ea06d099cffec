-- Lists are read along indexes in the order of the row key, in a time that does not depend on the
-- size of the record. A list by one column is merged from several ranges of a longer index, so that
-- a callback updates as few indexes as possible.

drop index tasks_by_status;
create index callbacks_by_outcome on callbacks (provider, outcome);
-- Updated when a delivery ends; pending and claimed deliveries have their own indexes.
create index deliveries_ended on deliveries (state, hook) where state in ('delivered', 'dead');
