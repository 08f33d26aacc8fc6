-- Adds the answer to a record that is done, in the transaction that made it so.
UPDATE "{table}" SET reply = $5
WHERE scope = $1 AND message_id = $2 AND status = 'done' AND owner = $3 AND fence = $4
