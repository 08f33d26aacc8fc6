-- The records as they are, and the time. The index is named lest a small table be read, and with
-- some isolation levels locked, as a whole.
SELECT scope, message_id, status, subscription, fingerprint, owner, fence, attempt, taken_over,
    lease_until, expires_at,
    CAST(TIMESTAMPDIFF(MICROSECOND, {epoch}, processed_at) DIV 1000 AS SIGNED) AS since,
    reply, trace_parent, CAST({now} AS SIGNED) AS now
FROM `{table}` FORCE INDEX (PRIMARY)
WHERE
{each}
(scope = ?2 AND message_id = ?3)
{end}
