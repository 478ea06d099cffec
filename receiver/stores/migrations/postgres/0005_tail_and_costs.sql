-- What happened last: attempts have no row key, and are followed by their end.
create index attempts_by_end on attempts (ended_at, delivery, number);

-- What `cost` counts: `units` of the provider, or a currency.
alter table tasks add column cost_unit text;
