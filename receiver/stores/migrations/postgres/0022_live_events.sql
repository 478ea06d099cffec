-- Live events find results that were replaced. The index contains only these, so recording other
-- transitions does not write to it.
create index transitions_revised on transitions (recorded_at, id) where revision > 0;

-- The number of live listeners of a web process, in a row of the kind `listeners`.
alter table processes add column listeners integer not null default 0;
