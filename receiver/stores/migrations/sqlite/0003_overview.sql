-- Counts for the dashboard: triggers update them in the same commit, so that no page has to count a
-- growing table.

-- Tasks by status; `given_up` stands for an open task that is no longer queried.
create table task_counts (
  provider text not null,
  status text not null,
  value integer not null,
  primary key (provider, status)
) without rowid;

create table delivery_counts (
  hook text not null,
  state text not null,
  value integer not null,
  primary key (hook, state)
) without rowid;

-- Events of each hour since 1970, for two days: `place` is the hour modulo 48, and an hour replaces
-- the one two days before it, so the table does not grow. `series` is `callbacks` (distinct ones),
-- `succeeded`, `failed` or `latency`; a latency is below `bucket` ms.
create table hours (
  place integer not null,
  provider text not null,
  series text not null,
  bucket integer not null,
  hour integer not null,
  value integer not null,
  last_at integer not null,
  primary key (place, provider, series, bucket)
) without rowid;

create trigger tasks_counted after insert on tasks
begin
  insert into task_counts (provider, status, value)
  values (new.provider, case
    when new.given_up_at is not null and new.status in ('created', 'submitted', 'processing')
    then 'given_up' else new.status end, 1)
  on conflict (provider, status) do update set value = value + 1;
end;

create trigger tasks_counted_again after update of status, given_up_at on tasks
when new.status <> old.status or (new.given_up_at is null) <> (old.given_up_at is null)
begin
  update task_counts set value = value - 1
  where provider = old.provider and status = case
    when old.given_up_at is not null and old.status in ('created', 'submitted', 'processing')
    then 'given_up' else old.status end;
  insert into task_counts (provider, status, value)
  values (new.provider, case
    when new.given_up_at is not null and new.status in ('created', 'submitted', 'processing')
    then 'given_up' else new.status end, 1)
  on conflict (provider, status) do update set value = value + 1;
end;

create trigger deliveries_counted after insert on deliveries
begin
  insert into delivery_counts (hook, state, value) values (new.hook, new.state, 1)
  on conflict (hook, state) do update set value = value + 1;
end;

create trigger deliveries_counted_again after update of state on deliveries
when new.state <> old.state
begin
  update delivery_counts set value = value - 1 where hook = old.hook and state = old.state;
  insert into delivery_counts (hook, state, value) values (new.hook, new.state, 1)
  on conflict (hook, state) do update set value = value + 1;
end;

create trigger callbacks_counted after insert on callbacks when new.source = 'callback'
begin
  insert into hours (place, provider, series, bucket, hour, value, last_at)
  values (new.received_at / 3600000 % 48, new.provider, 'callbacks', 0,
    new.received_at / 3600000, 1, new.received_at)
  on conflict (place, provider, series, bucket) do update set
    value = case when excluded.hour > hour then 1 when excluded.hour = hour then value + 1
      else value end,
    hour = max(hour, excluded.hour), last_at = max(last_at, excluded.last_at);
end;

create trigger ends_counted after insert on transitions when new.status in ('succeeded', 'failed')
begin
  insert into hours (place, provider, series, bucket, hour, value, last_at)
  select new.recorded_at / 3600000 % 48, tasks.provider, new.status, 0,
    new.recorded_at / 3600000, 1, new.recorded_at
  from tasks where tasks.seq = new.task
  on conflict (place, provider, series, bucket) do update set
    value = case when excluded.hour > hour then 1 when excluded.hour = hour then value + 1
      else value end,
    hour = max(hour, excluded.hour), last_at = max(last_at, excluded.last_at);
end;

-- From the provider's clock to our receipt.
create trigger latency_counted after insert on transitions when new.callback is not null
begin
  insert into hours (place, provider, series, bucket, hour, value, last_at)
  select callbacks.received_at / 3600000 % 48, callbacks.provider, 'latency',
    case
      when callbacks.received_at - new.occurred_at < 250 then 250
      when callbacks.received_at - new.occurred_at < 500 then 500
      when callbacks.received_at - new.occurred_at < 1000 then 1000
      when callbacks.received_at - new.occurred_at < 2000 then 2000
      when callbacks.received_at - new.occurred_at < 5000 then 5000
      when callbacks.received_at - new.occurred_at < 10000 then 10000
      when callbacks.received_at - new.occurred_at < 30000 then 30000
      when callbacks.received_at - new.occurred_at < 60000 then 60000
      when callbacks.received_at - new.occurred_at < 300000 then 300000
      else 3600000
    end,
    callbacks.received_at / 3600000, 1, callbacks.received_at
  from callbacks where callbacks.id = new.callback and callbacks.source = 'callback'
  on conflict (place, provider, series, bucket) do update set
    value = case when excluded.hour > hour then 1 when excluded.hour = hour then value + 1
      else value end,
    hour = max(hour, excluded.hour), last_at = max(last_at, excluded.last_at);
end;

-- The existing rows. Of the hours, the newest 48 of each series are counted.
insert into task_counts (provider, status, value)
select provider, case
  when given_up_at is not null and status in ('created', 'submitted', 'processing')
  then 'given_up' else status end as standing, count(*)
from tasks group by provider, standing;

insert into delivery_counts (hook, state, value)
select hook, state, count(*) from deliveries group by hook, state;

insert into hours (place, provider, series, bucket, hour, value, last_at)
with told (provider, series, bucket, at) as (
  select provider, 'callbacks', 0, received_at from callbacks where source = 'callback'
  union all
  select tasks.provider, transitions.status, 0, transitions.recorded_at
  from transitions join tasks on tasks.seq = transitions.task
  where transitions.status in ('succeeded', 'failed')
  union all
  select callbacks.provider, 'latency', case
      when callbacks.received_at - transitions.occurred_at < 250 then 250
      when callbacks.received_at - transitions.occurred_at < 500 then 500
      when callbacks.received_at - transitions.occurred_at < 1000 then 1000
      when callbacks.received_at - transitions.occurred_at < 2000 then 2000
      when callbacks.received_at - transitions.occurred_at < 5000 then 5000
      when callbacks.received_at - transitions.occurred_at < 10000 then 10000
      when callbacks.received_at - transitions.occurred_at < 30000 then 30000
      when callbacks.received_at - transitions.occurred_at < 60000 then 60000
      when callbacks.received_at - transitions.occurred_at < 300000 then 300000
      else 3600000
    end, callbacks.received_at
  from transitions join callbacks on callbacks.id = transitions.callback
  where callbacks.source = 'callback'
),
newest (provider, series, hour) as (
  select provider, series, max(at) / 3600000 from told group by provider, series
)
select told.at / 3600000 % 48, told.provider, told.series, told.bucket, told.at / 3600000,
  count(*), max(told.at)
from told join newest on newest.provider = told.provider and newest.series = told.series
where told.at / 3600000 > newest.hour - 48
group by told.provider, told.series, told.bucket, told.at / 3600000;
