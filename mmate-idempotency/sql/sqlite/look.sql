-- The record as it is, and the time.
SELECT status, subscription, fingerprint, owner, fence, attempt, taken_over, lease_until, expires_at,
    CAST(round(unixepoch(processed_at, 'subsec') * 1000) AS INTEGER) AS since, reply, trace_parent,
    {now} AS now
FROM "{table}"
WHERE scope = ?2 AND message_id = ?3
