-- How many outputs the message has that the transition rests on; null: recorded before they were
-- counted. A later response with fewer outputs does not replace the message.
alter table transitions add column outputs integer;
