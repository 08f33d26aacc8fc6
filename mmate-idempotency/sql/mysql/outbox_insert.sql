INSERT INTO `{table}` (
    message_id, message_type, destination, ordering_key, head, body, created_at, ready_at
)
VALUES (?, ?, ?, ?, ?, ?, {now}, {now})
