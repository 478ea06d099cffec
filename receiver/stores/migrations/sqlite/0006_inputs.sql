-- Thumbnails of the inputs of tasks, if KEEP_INPUTS is set: JPEGs of at most 40 kB.

create table inputs (
  task integer not null references tasks (seq),
  name text not null,
  thumbnail blob not null,
  primary key (task, name)
);
