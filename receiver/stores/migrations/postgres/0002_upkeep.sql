-- Endpoints that fail, alerts about them, refused requests, and what is let go.

-- The other side of each hook that fails, or is paused or disabled; a hook without a row works.
create table endpoints (
  hook text primary key,
  failures bigint not null default 0,
  failing_since bigint,
  openings bigint not null default 0,
  retry_at bigint,
  paused_at bigint,
  disabled_at bigint,
  said text not null default ''
);

-- What people have to be told of an endpoint; gone once they were. An id is never used again.
create table alerts (
  id bigint generated always as identity primary key,
  hook text not null,
  kind text not null check (kind in ('paused', 'recovered', 'disabled')),
  at bigint not null,
  said text not null,
  due_at bigint not null
);

-- The newest refused requests: no token, and no more than 1,000 of them.
create table rejections (
  id bigint generated always as identity primary key,
  at bigint not null,
  address text not null,
  reason text not null,
  method text not null,
  path text not null,
  count bigint not null
);

-- Tasks of which nothing more is kept or told; `erased_at` null: their words are still there.
create table forgotten (
  task bigint primary key references tasks (seq),
  closed_at bigint not null,
  erased_at bigint
);

-- What waits is claimed hook by hook, so that one that is paused is in nobody's way.
drop index deliveries_due;
create index deliveries_waiting on deliveries (hook, due_at) where state = 'pending';

-- Bodies that are still kept, oldest first: pruning reads along it.
create index callbacks_kept on callbacks (received_at) where length(body) > 0;
