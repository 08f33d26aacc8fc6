(
    expires_at <= VALUES(claimed_at)
    OR status = 'released'
    OR (status = 'in progress' AND owner = VALUES(owner))
    OR (status = 'in progress' AND lease_until <= VALUES(claimed_at)
        AND COALESCE(fingerprint = VALUES(fingerprint), TRUE))
)
