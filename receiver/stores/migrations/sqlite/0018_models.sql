-- The provider's model that the task was created with; null: not known, or there is no choice.
alter table tasks add column model text;
