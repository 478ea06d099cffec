-- The newest test event of each hook, requested on the dashboard and sent by a worker. `again_at`
-- is when the next worker may claim it; null after it has ended.
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
