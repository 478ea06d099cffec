-- One provider task per task. `id_source` is the source of `provider_task_id`, because an id from a
-- create response outranks an id from a callback. `callback_task_id` is the id in callbacks of a
-- provider that may use other ids there. `mismatched_at` is when a message last named another
-- provider task.

alter table tasks add column callback_task_id text;
alter table tasks add column id_source text
  check (id_source in ('callback', 'query', 'create', 'operator'));
alter table tasks add column mismatched_at bigint;
-- How often the result of another provider task was replaced under the same status.
alter table transitions add column revision bigint not null default 0;
create index tasks_by_callback_task on tasks (provider, callback_task_id) where callback_task_id is not null;

update tasks set id_source = coalesce((
  select case max(case source when 'create' then 2 when 'query' then 1 else 0 end)
    when 2 then 'create' when 1 then 'query' else 'callback' end
  from callbacks
  where callbacks.task = tasks.seq and callbacks.outcome <> 'quarantined'
    and coalesce(callbacks.problem, '') not like 'tells of the provider''s task %'
), 'callback')
where provider_task_id is not null;

alter table callbacks drop constraint callbacks_outcome_check;
alter table callbacks add constraint callbacks_outcome_check check (
  outcome in ('recorded', 'duplicate', 'stale', 'conflict', 'confirming', 'mismatch', 'quarantined')
);
