-- Thumbnails of the inputs of tasks, if KEEP_INPUTS is set: JPEGs of at most 40 kB.

create table inputs (
  task bigint not null references tasks (seq),
  name text not null,
  thumbnail bytea not null,
  primary key (task, name)
);
