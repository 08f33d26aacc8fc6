-- Where in its trace a message was handled last, as its header `traceparent` says. Who does not know
-- the column leaves it empty.
ALTER TABLE `{table}` ADD COLUMN trace_parent VARCHAR(55) CHARACTER SET ascii COLLATE ascii_bin NULL
