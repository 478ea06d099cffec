-- Attempts get a row key: they are appended, and read in this order. An index of their ends, and a
-- table in the order of deliveries, which end in any order, took more space.

create table attempts_in_order (
  id integer primary key,
  delivery integer not null references deliveries (id),
  number integer not null,
  started_at integer not null,
  ended_at integer not null,
  outcome text not null check (outcome in ('delivered', 'failed', 'abandoned')),
  answer text not null,
  unique (delivery, number)
);

insert into attempts_in_order (delivery, number, started_at, ended_at, outcome, answer)
select delivery, number, started_at, ended_at, outcome, answer
from attempts order by ended_at, delivery, number;

drop table attempts;
alter table attempts_in_order rename to attempts;
