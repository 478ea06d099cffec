-- The difference between the record's clock and the time since boot, by boot of a machine. `step`:
-- the newest correction that `offset_ms` includes. `suspected_ms`: a step of the server's clock
-- that this boot noticed at `seen_at`, and that another boot has to confirm; null without one.
create table clocks (
  boot text primary key,
  offset_ms integer not null,
  step integer not null,
  seen_at integer not null,
  suspected_ms integer
) without rowid;

-- `by_ms`: how far the clock was set, negative for a step back. `moved_ms`: how far schedules were
-- moved.
create table clock_steps (
  id integer primary key,
  boot text not null,
  at integer not null,
  by_ms integer not null,
  moved_ms integer not null
);
