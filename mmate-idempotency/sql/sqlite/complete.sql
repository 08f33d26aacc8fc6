-- What this very claim made Done before stays as it is, and counts as done by it.
UPDATE "{table}" SET
    status = 'done',
    processed_at = CASE status
        WHEN 'done' THEN processed_at
        ELSE strftime('%Y-%m-%dT%H:%M:%fZ', {now} / 1000.0, 'unixepoch')
    END,
    lease_until = NULL,
    expires_at = iif(status = 'done', expires_at, {now} + ?6),
    reply = iif(status = 'done', reply, ?7)
WHERE scope = ?2 AND message_id = ?3
    AND (status = 'in progress' AND owner = ?4 OR status = 'done' AND fence = ?5)
    AND (expires_at IS NULL OR expires_at > {now})
