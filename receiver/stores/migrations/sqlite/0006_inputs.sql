-- Small copies of the pictures that were sent, where KEEP_INPUTS says so: JPEGs of at most 40 kB.

create table inputs (
  task integer not null references tasks (seq),
  name text not null,
  thumbnail blob not null,
  primary key (task, name)
);
