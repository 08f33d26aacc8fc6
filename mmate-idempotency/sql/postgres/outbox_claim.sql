-- Claims the oldest rows that may be sent: of each key the first, and what follows on it without a
-- gap. While the first is another sender's, or waits for its next attempt, the whole key waits.
-- Who has locked the first of a key is the only one to touch its others.
WITH clock AS MATERIALIZED (SELECT {now} AS now),
heads AS MATERIALIZED (
    SELECT m.seq, m.ordering_key
    FROM "{table}" AS m
    WHERE m.dead_at IS NULL AND m.ready_at <= {now}
        AND (m.ordering_key IS NULL OR m.seq = (
            SELECT min(earliest.seq) FROM "{table}" AS earliest
            WHERE earliest.ordering_key = m.ordering_key AND earliest.dead_at IS NULL
        ))
    ORDER BY m.seq LIMIT $3
    FOR UPDATE OF m SKIP LOCKED
),
followers AS (
    SELECT next.seq, heads.ordering_key, next.ready
    FROM heads CROSS JOIN LATERAL (
        SELECT m.seq, m.ready_at <= {now} AS ready
        FROM "{table}" AS m
        WHERE m.ordering_key = heads.ordering_key AND m.seq > heads.seq AND m.dead_at IS NULL
        ORDER BY m.seq LIMIT $3
    ) AS next
),
mine AS (
    SELECT seq FROM heads
    UNION ALL
    SELECT seq FROM (
        SELECT seq, bool_and(ready) OVER (PARTITION BY ordering_key ORDER BY seq) AS open FROM followers
    ) AS runs WHERE open
    ORDER BY seq LIMIT $3
)
UPDATE "{table}" AS m SET claim = $1, ready_at = clock.now + $2
FROM mine, clock
WHERE m.seq = mine.seq
RETURNING m.seq, m.ordering_key, m.head, m.body, m.attempts, m.created_at, clock.now
