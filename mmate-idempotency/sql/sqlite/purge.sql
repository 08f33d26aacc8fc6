DELETE FROM "{table}" WHERE (scope, message_id) IN (
    SELECT scope, message_id FROM "{table}" WHERE expires_at <= {now} LIMIT ?2
)
