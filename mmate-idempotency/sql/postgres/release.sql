-- Answers with the numbers of those who held. What a claim itself gave back before stays as it is,
-- and counts as given back by it.
WITH clock AS MATERIALIZED ({clock}),
given AS MATERIALIZED (
    SELECT given.*, now
    FROM unnest($3::text[], $4::text[], $5::bytea[], $6::bigint[])
        WITH ORDINALITY AS given (scope, message_id, owner, fence, n), clock
    -- As many as there are: see `complete.sql`.
    LIMIT $8::bigint
),
asked AS MATERIALIZED (
    SELECT asked.*
    FROM given AS asked
    JOIN "{table}" AS had ON had.scope = asked.scope AND had.message_id = asked.message_id
    ORDER BY asked.scope COLLATE "C", asked.message_id COLLATE "C"
    FOR UPDATE OF had
)
UPDATE "{table}" AS had SET
    status = 'released',
    fingerprint = NULL,
    lease_until = NULL,
    expires_at = CASE status WHEN 'released' THEN expires_at ELSE now + $7::bigint END
FROM asked
WHERE had.scope = asked.scope AND had.message_id = asked.message_id
    AND (
        status = 'in progress' AND had.owner = asked.owner
        OR status = 'released' AND had.fence = asked.fence
    )
    AND expires_at > now
RETURNING asked.n
