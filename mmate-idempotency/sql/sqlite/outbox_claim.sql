-- Claims the oldest rows that may be sent: of each key the first, and what follows on it without a
-- gap. While the first is another sender's, or waits for its next attempt, the whole key waits.
WITH clock (now) AS (SELECT {now}),
heads AS (
    SELECT m.seq, m.ordering_key
    FROM "{table}" AS m, clock
    WHERE m.dead_at IS NULL AND m.ready_at <= clock.now
        AND (m.ordering_key IS NULL OR m.seq = (
            SELECT min(earliest.seq) FROM "{table}" AS earliest
            WHERE earliest.ordering_key = m.ordering_key AND earliest.dead_at IS NULL
        ))
    ORDER BY m.seq LIMIT ?3
),
followers AS (
    SELECT m.seq, m.ordering_key, m.ready_at <= clock.now AS ready
    FROM heads JOIN "{table}" AS m ON m.ordering_key = heads.ordering_key AND m.seq > heads.seq, clock
    WHERE m.dead_at IS NULL
    ORDER BY m.seq LIMIT ?3
),
mine AS (
    SELECT seq FROM heads
    UNION ALL
    SELECT seq FROM (
        SELECT seq, min(ready) OVER (PARTITION BY ordering_key ORDER BY seq) AS open FROM followers
    ) WHERE open
    ORDER BY seq LIMIT ?3
)
UPDATE "{table}" SET claim = ?1, ready_at = (SELECT now FROM clock) + ?2
WHERE seq IN (SELECT seq FROM mine)
RETURNING seq, ordering_key, head, body, attempts, created_at, ready_at - ?2
