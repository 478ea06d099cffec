-- Open sessions of the dashboard: logging out deletes the row, and a cookie without its row is
-- invalid. `digest`: SHA-256 of the session's id, which is only in the cookie.
create table sessions (
  digest text primary key,
  opened_at bigint not null,
  ends_at bigint not null
);

-- Wrong passwords and tokens, counted by all processes together. `slot` limits the rows of each
-- kind; `sender` is a digest of the network, and `used` is what it had used up at `at`.
create table refused_attempts (
  kind text not null,
  slot integer not null,
  sender text not null,
  used double precision not null,
  at bigint not null,
  primary key (kind, slot)
);
