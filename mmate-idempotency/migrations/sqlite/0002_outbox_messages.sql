-- One row for each message that is to be published and was not yet confirmed by the broker.
--
-- Times are milliseconds since 1970, by the clock of the machine that the database is on.
CREATE TABLE IF NOT EXISTS "{table}" (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of a key's messages
    message_id   TEXT    NOT NULL,
    message_type TEXT    NOT NULL,
    destination  TEXT    NOT NULL,                  -- for who reads this
    ordering_key TEXT             COLLATE BINARY,   -- whose messages are sent one after another
    head         TEXT    NOT NULL,                  -- destination, properties and headers, in JSON
    body         BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    ready_at     INTEGER NOT NULL,                  -- not sent before; or how long a claim lasts
    claim        BLOB,                              -- names the sender that has it
    attempts     INTEGER NOT NULL DEFAULT 0,        -- that failed
    error        TEXT,                              -- of the last of them
    dead_at      INTEGER                            -- since when it is given up
) STRICT;

CREATE INDEX IF NOT EXISTS "{table}_ordering_key" ON "{table}" (ordering_key, seq)
    WHERE ordering_key IS NOT NULL AND dead_at IS NULL;
