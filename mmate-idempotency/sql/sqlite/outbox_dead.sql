SELECT seq, message_id, message_type, destination, ordering_key, attempts, error, created_at, dead_at
FROM "{table}"
WHERE dead_at IS NOT NULL
ORDER BY seq
LIMIT ?1
