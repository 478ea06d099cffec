-- What processes counted, for /metrics: sums that only grow, and instants that only get later.
-- `labels` is a JSON list of the label's values.

create table measures (
  name text not null,
  labels text not null,
  value double precision not null,
  primary key (name, labels)
);
