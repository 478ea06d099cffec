-- The task whose delivery brought the text in `said`, so that it is erased with that task.
alter table endpoints add column said_task integer references tasks (seq);
alter table alerts add column said_task integer references tasks (seq);

-- An erasure that was committed, but whose data the database still holds elsewhere, such as in the
-- write-ahead log, because a reader uses an older snapshot. There is at most one row: it is deleted
-- once everything that was erased is gone.
create table erasures (
  place integer primary key check (place = 1),
  since integer not null,
  mark integer not null
);

-- Texts on record came from an attempt, and are erased with its task. A text whose attempt was
-- erased already is erased now.
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

-- `prune` reads texts that are left along these.
create index attempts_kept on attempts (delivery) where answer <> '';
create index tasks_with_reason on tasks (seq) where reason is not null;
