-- Small copies of the pictures that were sent, where KEEP_INPUTS says so: JPEGs of at most 40 kB.

create table inputs (
  task bigint not null references tasks (seq),
  name text not null,
  thumbnail bytea not null,
  primary key (task, name)
);
