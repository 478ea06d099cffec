-- The difference between the record's clock and the time since boot, by boot of a machine. `step`:
-- the newest correction that `offset_ms` includes. `suspected_ms`: a step of the server's clock
-- that this boot noticed at `seen_at`, and that another boot has to confirm; null without one.
create table clocks (
  boot text primary key,
  offset_ms bigint not null,
  step bigint not null,
  seen_at bigint not null,
  suspected_ms bigint
);

-- `by_ms`: how far the clock was set, negative for a step back. `moved_ms`: how far schedules were
-- moved.
create table clock_steps (
  id bigint generated always as identity primary key,
  boot text not null,
  at bigint not null,
  by_ms bigint not null,
  moved_ms bigint not null
);
