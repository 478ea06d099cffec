-- The newest test event that somebody asked for on the dashboard, of each hook: a worker sends it.
-- `again_at`: when the next worker may take it; null once it ended.
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
