UPDATE `{table}` SET lease_until = {now} + ?5, expires_at = {now} + ?6
WHERE scope = ?2 AND message_id = ?3 AND status = 'in progress' AND owner = ?4
    AND expires_at > {now}
