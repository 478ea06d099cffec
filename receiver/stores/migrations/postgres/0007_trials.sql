-- The newest test event that somebody asked for on the dashboard, of each hook: a worker sends it.
-- `again_at`: when the next worker may take it; null once it ended.
create table trials (
  hook text primary key,
  status text not null,
  asked_at bigint not null,
  tries bigint not null default 0,
  again_at bigint,
  ended_at bigint,
  outcome text check (outcome in ('delivered', 'failed')),
  answer text not null default '',
  check ((again_at is null) = (ended_at is not null)),
  check ((ended_at is null) = (outcome is null))
);
