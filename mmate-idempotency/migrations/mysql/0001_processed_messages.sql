-- One row for each message that was processed, is being processed, or was given back.
--
-- `processed_at` is set once a message is done, in UTC. The other times are milliseconds since
-- 1970, by the clock of the machine that the database is on. Scopes and ids are bytes, so that no
-- collation takes two of them for one; their lengths keep the key within 767 bytes, the least that
-- any page size allows.
CREATE TABLE IF NOT EXISTS `{table}` (
    scope          VARBINARY(512) NOT NULL COMMENT 'within which an id stands for one effect',
    message_id     VARBINARY(255) NOT NULL COMMENT 'or the key, where a strategy has another one',
    status         VARCHAR(11) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
                   CHECK (status IN ('in progress', 'released', 'done')),
    processed_at   DATETIME(3)    NULL,
    service_name   VARCHAR(255)   NOT NULL COMMENT 'who claimed it last',
    subscription   VARCHAR(255)   NOT NULL,
    instance       VARCHAR(255)   NOT NULL,
    correlation_id VARCHAR(255)   NULL,
    message_type   VARCHAR(255)   NOT NULL,
    fingerprint    VARBINARY(16)  NULL     COMMENT 'of its content',
    owner          VARBINARY(16)  NOT NULL COMMENT 'names one attempt to claim',
    fence          BIGINT         NOT NULL COMMENT 'rises with every claim',
    attempt        BIGINT         NOT NULL,
    taken_over     BOOLEAN        NOT NULL COMMENT 'whether from a holder whose lease ran out',
    claimed_at     BIGINT         NOT NULL,
    lease_until    BIGINT         NULL     COMMENT 'while in progress',
    expires_at     BIGINT         NULL     COMMENT 'from then on it counts as absent',
    reply          LONGBLOB       NULL,
    PRIMARY KEY (scope, message_id),
    KEY expires_at (expires_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
