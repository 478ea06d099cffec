-- The number of outputs in the message of the transition; null if it was recorded before outputs
-- were counted. A later response with fewer outputs does not replace the message.
alter table transitions add column outputs integer;
