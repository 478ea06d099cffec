-- The record: tasks, the messages of providers, transitions, and deliveries to hooks. Times are
-- bigint milliseconds UTC. `seq` is the row key in the database, in the order of arrival; `id` of a
-- task is its public key, in the order of time.

create table tasks (
  seq bigint generated always as identity primary key,
  id text not null unique,
  provider text not null,
  account text not null default 'default',
  provider_task_id text,
  reference text,
  status text not null check (status in ('created', 'submitted', 'processing', 'succeeded', 'failed')),
  trust text not null check (trust in ('token', 'signed', 'queried')),
  reason text,
  cost text,
  conflict bigint not null default 0 check (conflict in (0, 1)),
  created_at bigint not null,
  updated_at bigint not null,
  expects_callback bigint not null default 0 check (expects_callback in (0, 1)),
  asked bigint not null default 0,
  deadline_at bigint,
  given_up_at bigint
);

-- The task of a signed callback without a token, or of a query, is found by the provider's id.
create index tasks_by_provider_task on tasks (provider, provider_task_id) where provider_task_id is not null;
create index tasks_by_reference on tasks (reference) where reference is not null;
create index tasks_by_deadline on tasks (deadline_at) where deadline_at is not null;
-- Lists are read along these indexes, newest first, in a time that does not depend on their length.
create index tasks_by_status on tasks (status);
create index tasks_by_provider on tasks (provider, status);
create index tasks_by_account on tasks (account) where account <> 'default';

-- Every distinct body that a provider sent about a task, unchanged; byte-identical repeats are
-- counted. A signed message that could not be interpreted belongs to no task.
create table callbacks (
  id bigint generated always as identity primary key,
  task bigint references tasks (seq),
  provider text not null,
  source text not null check (source in ('callback', 'create', 'query')),
  trust text not null check (trust in ('token', 'signed', 'queried')),
  outcome text not null check (outcome in ('recorded', 'duplicate', 'stale', 'conflict', 'confirming', 'quarantined')),
  received_at bigint not null,
  repeats bigint not null default 0,
  digest bytea not null,
  problem text,
  headers text not null,
  body bytea not null,
  unique (task, digest)
);

create unique index callbacks_of_no_task on callbacks (provider, digest) where task is null;
create index callbacks_in_quarantine on callbacks (id) where outcome = 'quarantined';

-- The transitions of tasks, once per task and status; the unique key prevents duplicates.
create table transitions (
  id bigint generated always as identity primary key,
  task bigint not null references tasks (seq),
  status text not null check (status in ('created', 'submitted', 'processing', 'succeeded', 'failed', 'given_up')),
  callback bigint references callbacks (id),
  occurred_at bigint not null,
  recorded_at bigint not null,
  trust text not null check (trust in ('token', 'signed', 'queried')),
  corrected bigint not null default 0 check (corrected in (0, 1)),
  unique (task, status)
);

-- The outbox: one row for each hook that receives a transition, written in the same commit.
-- `due_at` is when the delivery may be claimed; for a claimed one, when its lease expires; null
-- while it waits for the delivery of the hook named by `after` to end.
create table deliveries (
  id bigint generated always as identity primary key,
  transition bigint not null references transitions (id),
  hook text not null,
  state text not null default 'pending' check (state in ('pending', 'claimed', 'delivered', 'dead')),
  after text,
  due_at bigint,
  attempts bigint not null default 0,
  retries_from bigint not null default 0,
  worker text,
  ended_at bigint,
  unique (transition, hook)
);

create index deliveries_due on deliveries (due_at) where state in ('pending', 'claimed');
create index deliveries_claimed on deliveries (due_at) where state = 'claimed';
create index deliveries_dead on deliveries (id) where state = 'dead';
create index deliveries_by_hook on deliveries (hook);

create table attempts (
  delivery bigint not null references deliveries (id),
  number bigint not null,
  started_at bigint not null,
  ended_at bigint not null,
  outcome text not null check (outcome in ('delivered', 'failed', 'abandoned')),
  answer text not null,
  primary key (delivery, number)
);

-- Files that a hook stored for the outputs of a task; the thumbnail is a JPEG of at most 40 kB.
create table files (
  delivery bigint not null references deliveries (id),
  media_index text not null,
  url text not null,
  sha256 text not null,
  size bigint not null,
  content_type text not null,
  thumbnail bytea,
  primary key (delivery, media_index)
);

-- Running processes; /readyz shows if no worker is running.
create table processes (
  name text primary key,
  kind text not null,
  seen_at bigint not null
);

-- Pauses: the requests of a provider's account (`kling:default`) wait until this time.
create table pauses (
  name text primary key,
  until bigint not null
);

-- Counters by provider, such as repairs and missed callbacks, updated in the same commit as the
-- event.
create table counters (
  name text not null,
  provider text not null,
  value bigint not null,
  primary key (name, provider)
);

-- Requests that may be repeated, by their Idempotency-Key. `task` is the id of the one task that a
-- request may create, chosen in advance; an expired claim is taken over by the next request.
create table idempotency_keys (
  key text primary key,
  digest bytea not null,
  task text not null,
  created_at bigint not null,
  held_until bigint not null,
  status bigint,
  answer text
);

create index idempotency_keys_by_age on idempotency_keys (created_at);

-- A delivery that becomes due is announced in the same commit, for whatever reason: Procrastinate's
-- job contains its id. At most one job of a delivery waits; its time follows the delivery's.
create function announce_delivery() returns trigger language plpgsql as $$
begin
  insert into procrastinate_jobs (queue_name, task_name, queueing_lock, args, scheduled_at)
  values (
    'deliveries', 'attempt', 'delivery ' || new.id, jsonb_build_object('delivery_id', new.id),
    to_timestamp(new.due_at / 1000.0)
  )
  on conflict (queueing_lock) where status = 'todo'
  do update set scheduled_at = excluded.scheduled_at;
  return null;
end
$$;

create trigger announce_new_delivery after insert on deliveries
for each row when (new.state = 'pending' and new.due_at is not null)
execute function announce_delivery();

create trigger announce_due_delivery after update of state, due_at on deliveries
for each row when (
  new.state = 'pending' and new.due_at is not null
  and (old.state <> 'pending' or old.due_at is distinct from new.due_at)
)
execute function announce_delivery();
