-- One record, by its key, as claims reach it: whoever locks in another order waits crosswise.
DELETE FROM `{table}` WHERE scope = ?2 AND message_id = ?3 AND expires_at <= {now}
