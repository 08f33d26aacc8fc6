-- Where in its trace a message was handled last, as its header `traceparent` says. Who does not know
-- the column leaves it empty.
ALTER TABLE "{table}" ADD COLUMN IF NOT EXISTS trace_parent text;
