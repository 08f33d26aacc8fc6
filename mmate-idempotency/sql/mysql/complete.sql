-- What this very claim made Done before stays as it is, and counts as done by it. The status is
-- assigned last, for what follows would see the new one.
UPDATE `{table}` SET
    processed_at = IF(status = 'done', processed_at, {epoch} + INTERVAL ({now} * 1000) MICROSECOND),
    expires_at = IF(status = 'done', expires_at, {now} + ?6),
    reply = IF(status = 'done', reply, ?7),
    lease_until = NULL,
    status = 'done'
WHERE scope = ?2 AND message_id = ?3
    AND (status = 'in progress' AND owner = ?4 OR status = 'done' AND fence = ?5)
    AND (expires_at IS NULL OR expires_at > {now})
