-- Sessions of the dashboard that are open: logging out deletes the row, and a cookie without its
-- row is worth nothing. `digest`: SHA-256 of the session's id, which only the cookie holds.
create table sessions (
  digest text primary key,
  opened_at bigint not null,
  ends_at bigint not null
);

-- Wrong passwords and tokens that all processes count together. `slot` bounds the rows of each
-- kind; `sender` is a digest of the network in it, and `used` what it had used up at `at`.
create table refused_attempts (
  kind text not null,
  slot integer not null,
  sender text not null,
  used double precision not null,
  at bigint not null,
  primary key (kind, slot)
);
