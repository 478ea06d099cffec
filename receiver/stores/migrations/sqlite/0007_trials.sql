-- The newest test event of each hook, requested on the dashboard and sent by a worker. `again_at`
-- is when the next worker may claim it; null after it has ended.
create table trials (
  hook text primary key,
  status text not null,
  asked_at integer not null,
  tries integer not null default 0,
  again_at integer,
  ended_at integer,
  outcome text check (outcome in ('delivered', 'failed')),
  answer text not null default '',
  check ((again_at is null) = (ended_at is not null)),
  check ((ended_at is null) = (outcome is null))
) without rowid;
