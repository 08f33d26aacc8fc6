-- Answers with the numbers of those who held.
WITH clock AS MATERIALIZED ({clock}),
given AS MATERIALIZED (
    SELECT given.*, now
    FROM unnest($3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[])
        WITH ORDINALITY AS given (scope, message_id, owner, lease, kept, n), clock
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
UPDATE "{table}" AS had SET lease_until = now + lease, expires_at = now + kept
FROM asked
WHERE had.scope = asked.scope AND had.message_id = asked.message_id
    AND status = 'in progress' AND had.owner = asked.owner AND expires_at > now
RETURNING asked.n
