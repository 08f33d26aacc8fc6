-- What this very claim gave back before stays as it is, and counts as given back by it.
UPDATE `{table}` SET
    expires_at = IF(status = 'released', expires_at, {now} + ?6),
    fingerprint = NULL,
    lease_until = NULL,
    status = 'released'
WHERE scope = ?2 AND message_id = ?3
    AND (status = 'in progress' AND owner = ?4 OR status = 'released' AND fence = ?5)
    AND expires_at > {now}
