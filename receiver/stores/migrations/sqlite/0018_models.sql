-- The provider's model in the create request; null if unknown, or if the provider has no choice.
alter table tasks add column model text;
