-- One row for each message that was processed, is being processed, or was given back.
--
-- `processed_at` is set once a message is done, in UTC. The other times are milliseconds since
-- 1970, by the clock of the machine that the database is on. Ids are compared byte by byte.
CREATE TABLE IF NOT EXISTS "{table}" (
    scope          TEXT    NOT NULL COLLATE BINARY, -- within which an id stands for one effect
    message_id     TEXT    NOT NULL COLLATE BINARY, -- or the key, where a strategy has another one
    status         TEXT    NOT NULL CHECK (status IN ('in progress', 'released', 'done')),
    processed_at   TEXT,
    service_name   TEXT    NOT NULL,                -- who claimed it last
    subscription   TEXT    NOT NULL,
    instance       TEXT    NOT NULL,
    correlation_id TEXT,
    message_type   TEXT    NOT NULL,
    fingerprint    BLOB,                            -- of its content
    owner          BLOB    NOT NULL,                -- names one attempt to claim
    fence          INTEGER NOT NULL,                -- rises with every claim
    attempt        INTEGER NOT NULL,
    taken_over     INTEGER NOT NULL,                -- whether from a holder whose lease ran out
    claimed_at     INTEGER NOT NULL,
    lease_until    INTEGER,                         -- while in progress
    expires_at     INTEGER,                         -- from then on it counts as absent
    reply          BLOB,
    PRIMARY KEY (scope, message_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS "{table}_expires_at" ON "{table}" (expires_at)
    WHERE expires_at IS NOT NULL;
