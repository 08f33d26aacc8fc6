-- Claims keys that no record is there of: most are. Each that was claimed has a row in the answer; of
-- the others `claim.sql` tells. With status 'done' it claims and completes in one step. All take their
-- locks in one order.
WITH clock AS MATERIALIZED (
    SELECT coalesce($1::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now
)
INSERT INTO "{table}" (
    scope, message_id, status, processed_at, service_name, subscription, instance, correlation_id,
    message_type, fingerprint, owner, fence, attempt, taken_over, claimed_at, lease_until, expires_at,
    trace_parent
)
SELECT scope, message_id, $2::text, CASE $2::text WHEN 'done' THEN to_timestamp(now / 1000.0) END,
    service_name, subscription, instance, correlation_id, message_type, fingerprint, owner,
    greatest(1, now << {fence_bits}), 1, false, now, now + lease, now + kept, trace_parent
FROM clock, unnest(
    $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bytea[],
    $11::bytea[], $12::bigint[], $13::bigint[], $14::text[]
) AS asked (
    scope, message_id, service_name, subscription, instance, correlation_id, message_type,
    fingerprint, owner, lease, kept, trace_parent
)
ORDER BY scope COLLATE "C", message_id COLLATE "C"
ON CONFLICT (scope, message_id) DO NOTHING
RETURNING fence, scope, message_id
