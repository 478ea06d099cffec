-- When the rate limit of a hook allows its next delivery, in ms; see docs/adr/0020-pacing.md.
create table pacing (
  hook text primary key,
  next_at double precision not null
);
