-- Makes Done what these very claims hold.
UPDATE "{table}" SET
    status = 'done',
    processed_at = strftime('%Y-%m-%dT%H:%M:%fZ', {now} / 1000.0, 'unixepoch'),
    lease_until = NULL,
    expires_at = {now} + ?3
FROM json_each(?2) AS claim
WHERE scope = claim.value ->> 0 AND message_id = claim.value ->> 1
    AND status = 'in progress' AND owner = unhex(claim.value ->> 2)
