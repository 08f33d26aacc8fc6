SELECT seq, message_id, message_type, destination, CONVERT(ordering_key USING utf8mb4), attempts, error, created_at, dead_at
FROM `{table}`
WHERE dead_at IS NOT NULL
ORDER BY seq
LIMIT ?
