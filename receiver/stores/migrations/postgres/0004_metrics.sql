-- Metrics of processes for /metrics: sums that only grow, and times that only get later. `labels`
-- is a JSON list of the values of the labels.

create table measures (
  name text not null,
  labels text not null,
  value double precision not null,
  primary key (name, labels)
);
