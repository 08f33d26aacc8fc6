-- Claims many keys, each at most once in ?2, with leases that are over at once: within a transaction
-- that completes them. The rows that come back are the grants; see claim.sql.
INSERT INTO "{table}" AS had (
    scope, message_id, status, processed_at, service_name, subscription, instance, correlation_id,
    message_type, fingerprint, owner, fence, attempt, taken_over, claimed_at, lease_until,
    expires_at, reply, trace_parent
)
SELECT claim.value ->> 0, claim.value ->> 1, 'in progress', NULL, claim.value ->> 2, claim.value ->> 3,
    claim.value ->> 4, claim.value ->> 5, claim.value ->> 6, unhex(claim.value ->> 7),
    unhex(claim.value ->> 8), max(1, now << {fence_bits}), 1, 0, now, now, now + ?3, NULL,
    claim.value ->> 9
FROM json_each(?2) AS claim, (SELECT {now} AS now) WHERE true
ON CONFLICT (scope, message_id) DO UPDATE SET
    status = excluded.status,
    processed_at = excluded.processed_at,
    service_name = excluded.service_name,
    subscription = excluded.subscription,
    instance = excluded.instance,
    correlation_id = excluded.correlation_id,
    message_type = excluded.message_type,
    fingerprint = excluded.fingerprint,
    owner = excluded.owner,
    fence = CASE
        WHEN had.expires_at <= excluded.claimed_at THEN max(had.fence + 1, excluded.fence)
        WHEN had.status = 'in progress' AND had.owner = excluded.owner THEN had.fence
        ELSE had.fence + 1
    END,
    attempt = CASE
        WHEN had.expires_at <= excluded.claimed_at THEN 1
        WHEN had.status = 'in progress' AND had.owner = excluded.owner THEN had.attempt
        ELSE had.attempt + 1
    END,
    taken_over = CASE
        WHEN had.expires_at <= excluded.claimed_at THEN 0
        WHEN had.status = 'released' THEN 0
        WHEN had.owner = excluded.owner THEN had.taken_over
        ELSE 1
    END,
    claimed_at = excluded.claimed_at,
    lease_until = excluded.lease_until,
    expires_at = excluded.expires_at,
    reply = NULL,
    trace_parent = excluded.trace_parent
WHERE had.expires_at <= excluded.claimed_at
    OR had.status = 'released'
    OR had.status = 'in progress' AND had.owner = excluded.owner
    OR had.status = 'in progress' AND had.lease_until <= excluded.claimed_at
        AND coalesce(had.fingerprint = excluded.fingerprint, true)
RETURNING scope, message_id, fence, attempt, taken_over
