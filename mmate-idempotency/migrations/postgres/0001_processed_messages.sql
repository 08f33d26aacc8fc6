-- One row for each message that was processed, is being processed, or was given back.
--
-- `processed_at` is set once a message is done. The other times are milliseconds since 1970, by the
-- clock of the database. Ids are compared byte by byte.
CREATE TABLE "{table}" (
    scope          text COLLATE "C" NOT NULL, -- within which an id stands for one effect
    message_id     text COLLATE "C" NOT NULL, -- or the key, where a strategy has another one
    status         text    NOT NULL CHECK (status IN ('in progress', 'released', 'done')),
    processed_at   timestamptz,
    service_name   text    NOT NULL,          -- who claimed it last
    subscription   text    NOT NULL,
    instance       text    NOT NULL,
    correlation_id text,
    message_type   text    NOT NULL,
    fingerprint    bytea,                     -- of its content
    owner          bytea   NOT NULL,          -- names one attempt to claim
    fence          bigint  NOT NULL,          -- rises with every claim
    attempt        bigint  NOT NULL,
    taken_over     boolean NOT NULL,          -- whether from a holder whose lease ran out
    claimed_at     bigint  NOT NULL,
    lease_until    bigint,                    -- while in progress
    expires_at     bigint,                    -- from then on it counts as absent
    reply          bytea,
    PRIMARY KEY (scope, message_id)
);

CREATE INDEX ON "{table}" (expires_at) WHERE expires_at IS NOT NULL;
