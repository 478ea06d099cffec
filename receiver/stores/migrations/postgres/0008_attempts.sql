-- Attempts get a row key: they are appended, and followed along it. An index of their ends, and a
-- table in the order of deliveries, which end in no order, took more room.

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
