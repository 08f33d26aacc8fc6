-- Claims a key: the row that comes back is the grant. None comes back if the key is done, busy or
-- in conflict. With status 'done' it claims and completes in one step.
INSERT INTO "{table}" AS had (
    scope, message_id, status, processed_at, service_name, subscription, instance, correlation_id,
    message_type, fingerprint, owner, fence, attempt, taken_over, claimed_at, lease_until,
    expires_at, reply, trace_parent
)
SELECT ?2, ?3, ?4,
    iif(?4 = 'done', strftime('%Y-%m-%dT%H:%M:%fZ', now / 1000.0, 'unixepoch'), NULL),
    ?5, ?6, ?7, ?8, ?9, ?10, ?11, max(1, now << {fence_bits}), 1, 0, now, now + ?12, now + ?13, NULL,
    ?14
FROM (SELECT {now} AS now) WHERE true
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
RETURNING fence, attempt, taken_over
