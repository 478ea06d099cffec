-- Endpoints that fail, alerts about them, rejected requests, and forgotten tasks.

-- The endpoint of each hook that fails, is paused or is disabled; a hook without a row works.
create table endpoints (
  hook text primary key,
  failures integer not null default 0,
  failing_since integer,
  openings integer not null default 0,
  retry_at integer,
  paused_at integer,
  disabled_at integer,
  said text not null default ''
) without rowid;

-- Alerts about endpoints, deleted when they were sent. An id is never reused.
create table alerts (
  id integer primary key autoincrement,
  hook text not null,
  kind text not null check (kind in ('paused', 'recovered', 'disabled')),
  at integer not null,
  said text not null,
  due_at integer not null
);

-- The newest rejected requests, without tokens, and at most 1,000.
create table rejections (
  id integer primary key,
  at integer not null,
  address text not null,
  reason text not null,
  method text not null,
  path text not null,
  count integer not null
);

-- Forgotten tasks: nothing more is stored or sent about them. `erased_at` is null until their data
-- was erased.
create table forgotten (
  task integer primary key references tasks (seq),
  closed_at integer not null,
  erased_at integer
);

-- Pending deliveries are claimed hook by hook, so that a paused hook delays no other.
drop index deliveries_due;
create index deliveries_waiting on deliveries (hook, due_at) where state = 'pending';

-- Callbacks with a body, oldest first, for `prune`.
create index callbacks_kept on callbacks (received_at) where length(body) > 0;
