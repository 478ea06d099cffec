-- The caller's own data about the task, a JSON object; null if there is none.
alter table tasks add column metadata text;

-- The tasks on which the poller gave up, newest first.
create index tasks_given_up on tasks (seq) where given_up_at is not null;
