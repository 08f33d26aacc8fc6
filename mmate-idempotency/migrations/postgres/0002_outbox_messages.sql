-- One row for each message that is to be published and was not yet confirmed by the broker.
--
-- Times are milliseconds since 1970, by the database's clock.
CREATE TABLE IF NOT EXISTS "{table}" (
    seq          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the order of a key's messages
    message_id   TEXT   NOT NULL,
    message_type TEXT   NOT NULL,
    destination  TEXT   NOT NULL,            -- for who reads this
    ordering_key TEXT   COLLATE "C",         -- whose messages are sent one after another
    head         TEXT   NOT NULL,            -- destination, properties and headers, in JSON
    body         BYTEA  NOT NULL,
    created_at   BIGINT NOT NULL,
    ready_at     BIGINT NOT NULL,            -- not sent before; or how long a claim lasts
    claim        BYTEA,                      -- names the sender that has it
    attempts     BIGINT NOT NULL DEFAULT 0,  -- that failed
    error        TEXT,                       -- of the last of them
    dead_at      BIGINT                      -- since when it is given up
);

CREATE INDEX IF NOT EXISTS "{table}_ordering_key" ON "{table}" (ordering_key, seq)
    WHERE ordering_key IS NOT NULL AND dead_at IS NULL;
