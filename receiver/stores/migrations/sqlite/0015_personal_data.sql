-- The task whose delivery failed with the text in `said`, so that it is erased with that task.
alter table endpoints add column said_task integer references tasks (seq);
alter table alerts add column said_task integer references tasks (seq);

-- An erasure that was committed, while the database still contains copies of the data, such as in
-- the write-ahead log, because a reader uses an older snapshot. There is at most one row, which is
-- deleted when all copies are gone.
create table erasures (
  place integer primary key check (place = 1),
  since integer not null,
  mark integer not null
);

-- Existing texts belong to the task of their attempt. A text whose attempt was erased already is
-- erased now.
update endpoints set said_task = (
  select tr.task from attempts a join deliveries d on d.id = a.delivery
  join transitions tr on tr.id = d.transition
  where d.hook = endpoints.hook and substr(a.answer, 1, 500) = endpoints.said
  order by a.ended_at desc, a.number desc limit 1
) where said <> '';
update endpoints set said = '(erased: its task was erased)' where said <> '' and said_task is null;
update alerts set said_task = (
  select tr.task from attempts a join deliveries d on d.id = a.delivery
  join transitions tr on tr.id = d.transition
  where d.hook = alerts.hook and substr(a.answer, 1, 500) = alerts.said
  order by a.ended_at desc, a.number desc limit 1
) where said <> '';
update alerts set said = '(erased: its task was erased)' where said <> '' and said_task is null;

-- The texts that `prune` reads.
create index attempts_kept on attempts (delivery) where answer <> '';
create index tasks_with_reason on tasks (seq) where reason is not null;
