-- Lists are read along indexes in the order of the row key, so that a page costs the same however
-- long the record is. A list by one column alone is put together from those of a longer index, so
-- that a callback updates as few indexes as possible.

drop index tasks_by_status;
create index callbacks_by_outcome on callbacks (provider, outcome);
-- Written on the way out: what is pending or claimed has indexes of its own.
create index deliveries_ended on deliveries (state, hook) where state in ('delivered', 'dead');
