-- Endpoints that fail, alerts about them, refused requests, and what is let go.

-- The other side of each hook that fails, or is paused or disabled; a hook without a row works.
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

-- What people have to be told of an endpoint; gone once they were. An id is never used again.
create table alerts (
  id integer primary key autoincrement,
  hook text not null,
  kind text not null check (kind in ('paused', 'recovered', 'disabled')),
  at integer not null,
  said text not null,
  due_at integer not null
);

-- The newest refused requests: no token, and no more than 1,000 of them.
create table rejections (
  id integer primary key,
  at integer not null,
  address text not null,
  reason text not null,
  method text not null,
  path text not null,
  count integer not null
);

-- Tasks of which nothing more is kept or told; `erased_at` null: their words are still there.
create table forgotten (
  task integer primary key references tasks (seq),
  closed_at integer not null,
  erased_at integer
);

-- What waits is claimed hook by hook, so that one that is paused is in nobody's way.
drop index deliveries_due;
create index deliveries_waiting on deliveries (hook, due_at) where state = 'pending';

-- Bodies that are still kept, oldest first: pruning reads along it.
create index callbacks_kept on callbacks (received_at) where length(body) > 0;
