-- Those of the rows found that are still there, and are nobody else's. Who has locked the first of a
-- key is the only one to touch its others.
SELECT seq FROM `{table}`
WHERE seq IN ({seqs}) AND dead_at IS NULL AND ready_at <= {now}
ORDER BY seq
FOR UPDATE SKIP LOCKED
