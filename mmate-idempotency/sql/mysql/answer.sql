-- Adds the answer to a record that is done, in the transaction that made it so.
UPDATE `{table}` SET reply = ?6
WHERE scope = ?2 AND message_id = ?3 AND status = 'done' AND owner = ?4 AND fence = ?5
