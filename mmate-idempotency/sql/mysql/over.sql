-- Which records are over. Nothing is locked by looking.
SELECT scope, message_id FROM `{table}` WHERE expires_at <= {now} ORDER BY expires_at LIMIT ?2
