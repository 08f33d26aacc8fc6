-- As `insert.sql`, for one key: a list, be it of one, costs more than all else.
INSERT INTO "{table}" (
    scope, message_id, status, processed_at, service_name, subscription, instance, correlation_id,
    message_type, fingerprint, owner, fence, attempt, taken_over, claimed_at, lease_until, expires_at,
    trace_parent
)
SELECT $3, $4, $2::text, CASE $2::text WHEN 'done' THEN to_timestamp(now / 1000.0) END,
    $5, $6, $7, $8, $9, $10, $11,
    greatest(1, now << {fence_bits}), 1, false, now, now + $12::bigint, now + $13::bigint, $14
FROM (
    SELECT coalesce($1::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now
) AS clock
ON CONFLICT (scope, message_id) DO NOTHING
RETURNING fence
