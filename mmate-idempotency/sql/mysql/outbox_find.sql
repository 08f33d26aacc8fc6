-- The oldest rows that may be sent, of each key the first only. Nothing is locked by this.
SELECT m.seq
FROM `{table}` AS m
WHERE m.dead_at IS NULL AND m.ready_at <= {now}
    AND (m.ordering_key IS NULL OR m.seq = (
        SELECT min(earliest.seq) FROM `{table}` AS earliest
        WHERE earliest.ordering_key = m.ordering_key AND earliest.dead_at IS NULL
    ))
ORDER BY m.seq LIMIT ?
