-- Answers with the numbers of those who held. What a claim itself made Done before stays as it is,
-- and counts as done by it. Rows are locked in one order, so that no two statements wait for each
-- other.
WITH clock AS MATERIALIZED ({clock}),
given AS MATERIALIZED (
    SELECT given.*, now
    FROM unnest($3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bytea[])
        WITH ORDINALITY AS given (scope, message_id, owner, fence, reply, n), clock
    -- As many as there are. Of a limit that it does not know PostgreSQL expects few rows, and looks each
    -- of them up: a plan that was made when the table was empty would read all of it else.
    LIMIT $9::bigint
),
asked AS MATERIALIZED (
    SELECT asked.*
    FROM given AS asked
    JOIN "{table}" AS had ON had.scope = asked.scope AND had.message_id = asked.message_id
    ORDER BY asked.scope COLLATE "C", asked.message_id COLLATE "C"
    FOR UPDATE OF had
)
UPDATE "{table}" AS had SET
    status = 'done',
    processed_at = CASE status
        WHEN 'done' THEN processed_at
        ELSE to_timestamp(now / 1000.0)
    END,
    lease_until = NULL,
    expires_at = CASE status WHEN 'done' THEN expires_at ELSE now + $8::bigint END,
    reply = CASE status WHEN 'done' THEN had.reply ELSE asked.reply END
FROM asked
WHERE had.scope = asked.scope AND had.message_id = asked.message_id
    AND (
        status = 'in progress' AND had.owner = asked.owner
        OR status = 'done' AND had.fence = asked.fence
    )
    AND (expires_at IS NULL OR expires_at > now)
RETURNING asked.n
