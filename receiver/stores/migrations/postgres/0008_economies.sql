-- Attempts get a row key: they are appended, and read in this order. An index of their ends, and a
-- table in the order of deliveries, which end in any order, took more space.

alter table attempts add column id bigint;

update attempts set id = placed.place
from (
  select delivery, number, row_number() over (order by ended_at, delivery, number) as place
  from attempts
) as placed
where attempts.delivery = placed.delivery and attempts.number = placed.number;

alter table attempts alter column id set not null;
alter table attempts alter column id add generated always as identity;
select setval(pg_get_serial_sequence('attempts', 'id'), greatest(max(id), 1), count(*) > 0)
from attempts;

drop index attempts_by_end;
alter table attempts drop constraint attempts_pkey;
alter table attempts add primary key (id);
alter table attempts add unique (delivery, number);

-- The counting functions are written again in plpgsql, which caches its plans: a SQL function that
-- cannot be inlined is planned at each call, which took more than half the time of a callback.

create or replace function latency_bucket(took bigint) returns bigint
language plpgsql immutable as $$
begin
  return case
    when took < 250 then 250
    when took < 500 then 500
    when took < 1000 then 1000
    when took < 2000 then 2000
    when took < 5000 then 5000
    when took < 10000 then 10000
    when took < 30000 then 30000
    when took < 60000 then 60000
    when took < 300000 then 300000
    else 3600000
  end;
end $$;

create or replace function count_task(of_provider text, of_status text, more bigint) returns void
language plpgsql as $$
declare
  own bigint := counting_slot();
begin
  insert into task_counts as known (provider, status, slot, value)
  values (of_provider, of_status, own, more)
  on conflict (provider, status, slot) do update set value = known.value + excluded.value;
end $$;

create or replace function count_delivery(of_hook text, of_state text, more bigint) returns void
language plpgsql as $$
declare
  own bigint := counting_slot();
begin
  insert into delivery_counts as known (hook, state, slot, value)
  values (of_hook, of_state, own, more)
  on conflict (hook, state, slot) do update set value = known.value + excluded.value;
end $$;

create or replace function count_in_hour(
  of_provider text, of_series text, of_bucket bigint, at bigint
) returns void language plpgsql as $$
declare
  own bigint := counting_slot();
begin
  insert into hours as known (place, provider, series, bucket, slot, hour, value, last_at)
  values (at / 3600000 % 48, of_provider, of_series, of_bucket, own, at / 3600000, 1, at)
  on conflict (place, provider, series, bucket, slot) do update set
    value = case when excluded.hour > known.hour then 1
      when excluded.hour = known.hour then known.value + 1 else known.value end,
    hour = greatest(known.hour, excluded.hour),
    last_at = greatest(known.last_at, excluded.last_at);
end $$;
