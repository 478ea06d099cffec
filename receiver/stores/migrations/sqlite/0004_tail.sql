-- What happened last: attempts have no row key, and are followed by their end.
create index attempts_by_end on attempts (ended_at, delivery, number);
