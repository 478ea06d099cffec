-- Endpoints that fail, alerts about them, rejected requests, and forgotten tasks.

-- The endpoint of each hook that fails, is paused or is disabled; a hook without a row works.
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

-- Alerts about endpoints, deleted when they were sent. An id is never reused.
create table alerts (
  id bigint generated always as identity primary key,
  hook text not null,
  kind text not null check (kind in ('paused', 'recovered', 'disabled')),
  at bigint not null,
  said text not null,
  due_at bigint not null
);

-- The newest rejected requests, without tokens, and at most 1,000.
create table rejections (
  id bigint generated always as identity primary key,
  at bigint not null,
  address text not null,
  reason text not null,
  method text not null,
  path text not null,
  count bigint not null
);

-- Forgotten tasks: nothing more is stored or sent about them. `erased_at` is null until their data
-- was erased.
create table forgotten (
  task bigint primary key references tasks (seq),
  closed_at bigint not null,
  erased_at bigint
);

-- Pending deliveries are claimed hook by hook, so that a paused hook delays no other.
drop index deliveries_due;
create index deliveries_waiting on deliveries (hook, due_at) where state = 'pending';

-- Callbacks with a body, oldest first, for `prune`.
create index callbacks_kept on callbacks (received_at) where length(body) > 0;

-- Deliveries of a paused hook have no job. When its endpoint works again, or the operator resumes
-- it, its row is deleted and its oldest deliveries are announced; the sweep announces the others.
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
