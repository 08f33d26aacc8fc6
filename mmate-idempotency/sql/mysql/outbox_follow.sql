-- What comes after the rows that were locked, by key.
SELECT m.seq, CONVERT(m.ordering_key USING utf8mb4), m.ready_at <= {now}
FROM `{table}` AS head JOIN `{table}` AS m
    ON m.ordering_key = head.ordering_key AND m.seq > head.seq
WHERE head.seq IN ({seqs}) AND m.dead_at IS NULL
ORDER BY m.seq LIMIT ?
