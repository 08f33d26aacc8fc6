INSERT INTO "{table}" (
    message_id, message_type, destination, ordering_key, head, body, created_at, ready_at
)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, {now}, {now})
