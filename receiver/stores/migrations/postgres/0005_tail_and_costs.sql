-- Recent attempts: they have no row key, and are ordered by their end.
create index attempts_by_end on attempts (ended_at, delivery, number);

-- The unit of `cost`: `units` of the provider, or a currency.
alter table tasks add column cost_unit text;
