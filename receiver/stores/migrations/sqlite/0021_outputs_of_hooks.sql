-- What the hook returned for the hooks that wait for it, a JSON object; null if there is nothing.
alter table deliveries add column output text;
