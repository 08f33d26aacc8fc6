(
    had.expires_at <= excluded.claimed_at
    OR had.status = 'released'
    OR had.status = 'in progress' AND had.owner = excluded.owner
    OR had.status = 'in progress' AND had.lease_until <= excluded.claimed_at
        AND coalesce(had.fingerprint = excluded.fingerprint, true)
)
