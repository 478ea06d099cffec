-- Counts for the dashboard: triggers update them in the same commit, so that no page has to count a
-- growing table. Writers of a common row would wait for each other, so each of them counts in a
-- separate slot, and the slots are added up.

-- Tasks by status; `given_up` stands for an open task that is no longer queried.
create table task_counts (
  provider text not null,
  status text not null,
  slot bigint not null,
  value bigint not null,
  primary key (provider, status, slot)
) with (fillfactor = 50);

create table delivery_counts (
  hook text not null,
  state text not null,
  slot bigint not null,
  value bigint not null,
  primary key (hook, state, slot)
) with (fillfactor = 50);

-- Events of each hour since 1970, for two days: `place` is the hour modulo 48, and an hour replaces
-- the one two days before it, so the table does not grow. `series` is `callbacks` (distinct ones),
-- `succeeded`, `failed` or `latency`; a latency is below `bucket` ms.
create table hours (
  place bigint not null,
  provider text not null,
  series text not null,
  bucket bigint not null,
  slot bigint not null,
  hour bigint not null,
  value bigint not null,
  last_at bigint not null,
  primary key (place, provider, series, bucket, slot)
) with (fillfactor = 50);

-- The slot of this transaction: no other transaction uses it, so no two wait for each other. If all
-- 32 are in use, one is shared.
create function counting_slot() returns bigint language plpgsql as $$
declare
  own bigint := pg_backend_pid() % 32;
begin
  for step in 0..31 loop
    if pg_try_advisory_xact_lock(4217003, ((own + step) % 32)::int) then
      return (own + step) % 32;
    end if;
  end loop;
  return own;
end $$;

create function task_standing(status text, given_up_at bigint) returns text
language sql immutable as $$
  select case when given_up_at is not null and status in ('created', 'submitted', 'processing')
    then 'given_up' else status end
$$;

create function latency_bucket(took bigint) returns bigint language sql immutable as $$
  select coalesce(
    (select min(bound) from unnest(
      array[250, 500, 1000, 2000, 5000, 10000, 30000, 60000, 300000]
    ) as bound where took < bound), 3600000)
$$;

create function count_task(of_provider text, of_status text, more bigint) returns void
language sql as $$
  insert into task_counts as known (provider, status, slot, value)
  values (of_provider, of_status, counting_slot(), more)
  on conflict (provider, status, slot) do update set value = known.value + excluded.value
$$;

create function count_delivery(of_hook text, of_state text, more bigint) returns void
language sql as $$
  insert into delivery_counts as known (hook, state, slot, value)
  values (of_hook, of_state, counting_slot(), more)
  on conflict (hook, state, slot) do update set value = known.value + excluded.value
$$;

create function count_in_hour(of_provider text, of_series text, of_bucket bigint, at bigint)
returns void language sql as $$
  insert into hours as known (place, provider, series, bucket, slot, hour, value, last_at)
  values (at / 3600000 % 48, of_provider, of_series, of_bucket, counting_slot(),
    at / 3600000, 1, at)
  on conflict (place, provider, series, bucket, slot) do update set
    value = case when excluded.hour > known.hour then 1
      when excluded.hour = known.hour then known.value + 1 else known.value end,
    hour = greatest(known.hour, excluded.hour),
    last_at = greatest(known.last_at, excluded.last_at)
$$;

create function tasks_counted() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' then
    perform count_task(old.provider, task_standing(old.status, old.given_up_at), -1);
  end if;
  perform count_task(new.provider, task_standing(new.status, new.given_up_at), 1);
  return null;
end $$;

create trigger tasks_counted after insert on tasks
for each row execute function tasks_counted();
create trigger tasks_counted_again after update of status, given_up_at on tasks
for each row
when (new.status <> old.status or (new.given_up_at is null) <> (old.given_up_at is null))
execute function tasks_counted();

create function deliveries_counted() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' then
    perform count_delivery(old.hook, old.state, -1);
  end if;
  perform count_delivery(new.hook, new.state, 1);
  return null;
end $$;

create trigger deliveries_counted after insert on deliveries
for each row execute function deliveries_counted();
create trigger deliveries_counted_again after update of state on deliveries
for each row when (new.state <> old.state) execute function deliveries_counted();

create function callbacks_counted() returns trigger language plpgsql as $$
begin
  perform count_in_hour(new.provider, 'callbacks', 0, new.received_at);
  return null;
end $$;

create trigger callbacks_counted after insert on callbacks
for each row when (new.source = 'callback') execute function callbacks_counted();

-- The latency is measured from the provider's clock to our receipt.
create function transitions_counted() returns trigger language plpgsql as $$
begin
  if new.status in ('succeeded', 'failed') then
    perform count_in_hour(tasks.provider, new.status, 0, new.recorded_at)
    from tasks where tasks.seq = new.task;
  end if;
  if new.callback is not null then
    perform count_in_hour(callbacks.provider, 'latency',
      latency_bucket(callbacks.received_at - new.occurred_at), callbacks.received_at)
    from callbacks where callbacks.id = new.callback and callbacks.source = 'callback';
  end if;
  return null;
end $$;

create trigger transitions_counted after insert on transitions
for each row execute function transitions_counted();

-- The existing rows; the triggers make every writer wait until this is committed. Of the hours, the
-- newest 48 of each series are counted.
insert into task_counts (provider, status, slot, value)
select provider, task_standing(status, given_up_at), 0, count(*) from tasks group by 1, 2;

insert into delivery_counts (hook, state, slot, value)
select hook, state, 0, count(*) from deliveries group by 1, 2;

insert into hours (place, provider, series, bucket, slot, hour, value, last_at)
with told (provider, series, bucket, at) as (
  select provider, 'callbacks', 0, received_at from callbacks where source = 'callback'
  union all
  select tasks.provider, transitions.status, 0, transitions.recorded_at
  from transitions join tasks on tasks.seq = transitions.task
  where transitions.status in ('succeeded', 'failed')
  union all
  select callbacks.provider, 'latency',
    latency_bucket(callbacks.received_at - transitions.occurred_at), callbacks.received_at
  from transitions join callbacks on callbacks.id = transitions.callback
  where callbacks.source = 'callback'
),
newest (provider, series, hour) as (
  select provider, series, max(at) / 3600000 from told group by provider, series
)
select told.at / 3600000 % 48, told.provider, told.series, told.bucket, 0, told.at / 3600000,
  count(*), max(told.at)
from told join newest on newest.provider = told.provider and newest.series = told.series
where told.at / 3600000 > newest.hour - 48
group by told.provider, told.series, told.bucket, told.at / 3600000;
