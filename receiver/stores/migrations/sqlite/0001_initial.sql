-- The record: tasks, the messages of providers, transitions, and deliveries to hooks. Times are
-- integer milliseconds UTC. `seq` is the row key in the database, in the order of arrival; `id` of
-- a task is its public key, in the order of time.

create table tasks (
  seq integer primary key,
  id text not null unique,
  provider text not null,
  account text not null default 'default',
  provider_task_id text,
  reference text,
  status text not null check (status in ('created', 'submitted', 'processing', 'succeeded', 'failed')),
  trust text not null check (trust in ('token', 'signed', 'queried')),
  reason text,
  cost text,
  conflict integer not null default 0 check (conflict in (0, 1)),
  created_at integer not null,
  updated_at integer not null,
  expects_callback integer not null default 0 check (expects_callback in (0, 1)),
  asked integer not null default 0,
  deadline_at integer,
  given_up_at integer
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
  id integer primary key,
  task integer references tasks (seq),
  provider text not null,
  source text not null check (source in ('callback', 'create', 'query')),
  trust text not null check (trust in ('token', 'signed', 'queried')),
  outcome text not null check (outcome in ('recorded', 'duplicate', 'stale', 'conflict', 'confirming', 'quarantined')),
  received_at integer not null,
  repeats integer not null default 0,
  digest blob not null,
  problem text,
  headers text not null,
  body blob not null,
  unique (task, digest)
);

create unique index callbacks_of_no_task on callbacks (provider, digest) where task is null;
create index callbacks_in_quarantine on callbacks (id) where outcome = 'quarantined';

-- The transitions of tasks, once per task and status; the unique key prevents duplicates.
create table transitions (
  id integer primary key,
  task integer not null references tasks (seq),
  status text not null check (status in ('created', 'submitted', 'processing', 'succeeded', 'failed', 'given_up')),
  callback integer references callbacks (id),
  occurred_at integer not null,
  recorded_at integer not null,
  trust text not null check (trust in ('token', 'signed', 'queried')),
  corrected integer not null default 0 check (corrected in (0, 1)),
  unique (task, status)
);

-- The outbox: one row for each hook that receives a transition, written in the same commit.
-- `due_at` is when the delivery may be claimed; for a claimed one, when its lease expires; null
-- while it waits for the delivery of the hook named by `after` to end.
create table deliveries (
  id integer primary key,
  transition integer not null references transitions (id),
  hook text not null,
  state text not null default 'pending' check (state in ('pending', 'claimed', 'delivered', 'dead')),
  after text,
  due_at integer,
  attempts integer not null default 0,
  retries_from integer not null default 0,
  worker text,
  ended_at integer,
  unique (transition, hook)
);

create index deliveries_due on deliveries (due_at) where state in ('pending', 'claimed');
create index deliveries_claimed on deliveries (due_at) where state = 'claimed';
create index deliveries_dead on deliveries (id) where state = 'dead';
create index deliveries_by_hook on deliveries (hook);

create table attempts (
  delivery integer not null references deliveries (id),
  number integer not null,
  started_at integer not null,
  ended_at integer not null,
  outcome text not null check (outcome in ('delivered', 'failed', 'abandoned')),
  answer text not null,
  primary key (delivery, number)
) without rowid;

-- Files that a hook stored for the outputs of a task; the thumbnail is a JPEG of at most 40 kB.
create table files (
  delivery integer not null references deliveries (id),
  media_index text not null,
  url text not null,
  sha256 text not null,
  size integer not null,
  content_type text not null,
  thumbnail blob,
  primary key (delivery, media_index)
);

-- Running processes; /readyz shows if no worker is running.
create table processes (
  name text primary key,
  kind text not null,
  seen_at integer not null
) without rowid;

-- Pauses: the requests of a provider's account (`kling:default`) wait until this time.
create table pauses (
  name text primary key,
  until integer not null
) without rowid;

-- Counters by provider, such as repairs and missed callbacks, updated in the same commit as the
-- event.
create table counters (
  name text not null,
  provider text not null,
  value integer not null,
  primary key (name, provider)
) without rowid;

-- Requests that may be repeated, by their Idempotency-Key. `task` is the id of the one task that a
-- request may create, chosen in advance; an expired claim is taken over by the next request.
create table idempotency_keys (
  key text primary key,
  digest blob not null,
  task text not null,
  created_at integer not null,
  held_until integer not null,
  status integer,
  answer text
) without rowid;

create index idempotency_keys_by_age on idempotency_keys (created_at);
