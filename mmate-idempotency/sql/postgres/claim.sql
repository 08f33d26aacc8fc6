-- Claims keys. Each key has a row in the answer, in the order in which they were asked for: it has
-- the grant, or else the record as it was when the statement began. With status 'done' it claims and
-- completes in one step.
--
-- What the record refuses anyway is not written at: a duplicate takes no lock and waits for nobody.
-- Whether the others are granted is decided by the insertion alone, which sees what others have
-- committed meanwhile. All take their locks in one order.
WITH clock AS MATERIALIZED ({clock}),
asked AS MATERIALIZED (
    SELECT asked.*, now AS claimed_at
    FROM unnest(
        $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
        $11::bytea[], $12::bytea[], $13::bigint[], $14::bigint[], $15::text[]
    ) WITH ORDINALITY AS asked (
        scope, message_id, service_name, subscription, instance, correlation_id, message_type,
        fingerprint, owner, lease, kept, trace_parent, n
    ), clock
),
seen AS MATERIALIZED (
    SELECT excluded.n, excluded.scope AS of_scope, excluded.message_id AS of_message_id, had.*,
        had.scope IS NULL OR {free} AS is_free
    FROM asked AS excluded
    -- Looked up one by one, by the limit: a plan that was made when the table was empty would read all
    -- of it else.
    LEFT JOIN LATERAL (
        SELECT * FROM "{table}" AS had
        WHERE had.scope = excluded.scope AND had.message_id = excluded.message_id
        LIMIT 1
    ) AS had ON true
),
granted AS (
    INSERT INTO "{table}" AS had (
        scope, message_id, status, processed_at, service_name, subscription, instance,
        correlation_id, message_type, fingerprint, owner, fence, attempt, taken_over, claimed_at,
        lease_until, expires_at, reply, trace_parent
    )
    SELECT scope, message_id, $3::text,
        CASE $3::text WHEN 'done' THEN to_timestamp(claimed_at / 1000.0) END,
        service_name, subscription, instance, correlation_id, message_type, fingerprint, owner,
        greatest(1, claimed_at << {fence_bits}), 1, false, claimed_at, claimed_at + lease,
        claimed_at + kept, NULL, trace_parent
    FROM asked
    WHERE n IN (SELECT n FROM seen WHERE is_free)
    ORDER BY scope COLLATE "C", message_id COLLATE "C"
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
            WHEN had.expires_at <= excluded.claimed_at THEN greatest(had.fence + 1, excluded.fence)
            WHEN had.status = 'in progress' AND had.owner = excluded.owner THEN had.fence
            ELSE had.fence + 1
        END,
        attempt = CASE
            WHEN had.expires_at <= excluded.claimed_at THEN 1
            WHEN had.status = 'in progress' AND had.owner = excluded.owner THEN had.attempt
            ELSE had.attempt + 1
        END,
        taken_over = CASE
            WHEN had.expires_at <= excluded.claimed_at THEN false
            WHEN had.status = 'released' THEN false
            WHEN had.owner = excluded.owner THEN had.taken_over
            ELSE true
        END,
        claimed_at = excluded.claimed_at,
        lease_until = excluded.lease_until,
        expires_at = excluded.expires_at,
        reply = NULL,
        trace_parent = excluded.trace_parent
    WHERE {free}
    RETURNING scope, message_id, fence, attempt, taken_over
)
SELECT granted.fence AS granted_fence, granted.attempt AS granted_attempt,
    granted.taken_over AS granted_taken_over,
    seen.status, seen.subscription, seen.fingerprint, seen.owner, seen.fence, seen.attempt,
    seen.taken_over, seen.lease_until, seen.expires_at,
    round(extract(epoch FROM seen.processed_at) * 1000)::bigint AS since,
    CASE WHEN granted.fence IS NULL THEN seen.reply END AS reply, seen.trace_parent,
    clock.now
FROM seen
CROSS JOIN clock
LEFT JOIN granted
    ON granted.scope = seen.of_scope AND granted.message_id = seen.of_message_id
ORDER BY seen.n
