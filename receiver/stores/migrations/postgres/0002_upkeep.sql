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

-- Deliveries to a hook that is left alone have no job. Once its endpoint works again, or the
-- operator says so, its row goes, and the oldest of them are announced; the sweep follows with more.
create function announce_waiting() returns trigger language plpgsql as $$
begin
  insert into procrastinate_jobs (queue_name, task_name, queueing_lock, args)
  select 'deliveries', 'attempt', 'delivery ' || id, jsonb_build_object('delivery_id', id)
  from (
    select id from deliveries
    where state = 'pending' and hook = old.hook and due_at <= extract(epoch from now()) * 1000
    order by due_at limit 1000
  ) as waiting
  on conflict do nothing;
  return null;
end
$$;

create trigger announce_waiting_deliveries after delete on endpoints
for each row execute function announce_waiting();
