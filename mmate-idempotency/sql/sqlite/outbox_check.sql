SELECT seq, message_id, message_type, destination, ordering_key, head, body, created_at, ready_at,
    claim, attempts, error, dead_at
FROM "{table}"
WHERE 1 = 0
