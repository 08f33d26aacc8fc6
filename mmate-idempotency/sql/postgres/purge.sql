-- What somebody else purges or claims at this moment is left to them, so nobody waits. The order is
-- there for its index: otherwise the table is read from its beginning, past all that was removed.
WITH clock AS MATERIALIZED ({clock}),
over AS MATERIALIZED (
    SELECT scope, message_id
    FROM "{table}"
    WHERE expires_at <= (SELECT now FROM clock)
    ORDER BY expires_at
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
DELETE FROM "{table}" AS had USING over
WHERE had.scope = over.scope AND had.message_id = over.message_id
