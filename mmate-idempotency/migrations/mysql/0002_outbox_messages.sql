-- One row for each message that is to be published and was not yet confirmed by the broker.
--
-- Times are milliseconds since 1970, by the database's clock.
CREATE TABLE IF NOT EXISTS `{table}` (
    seq          BIGINT         NOT NULL AUTO_INCREMENT, -- the order of a key's messages
    message_id   VARCHAR(255)   NOT NULL,
    message_type VARCHAR(255)   NOT NULL,
    destination  VARCHAR(1024)  NOT NULL,                -- for who reads this
    ordering_key VARBINARY(255),                         -- whose messages are sent one after another
    head         LONGTEXT       NOT NULL,                -- destination, properties and headers, in JSON
    body         LONGBLOB       NOT NULL,
    created_at   BIGINT         NOT NULL,
    ready_at     BIGINT         NOT NULL,                -- not sent before; or how long a claim lasts
    claim        BINARY(16),                             -- names the sender that has it
    attempts     BIGINT         NOT NULL DEFAULT 0,      -- that failed
    error        TEXT,                                   -- of the last of them
    dead_at      BIGINT,                                 -- since when it is given up
    PRIMARY KEY (seq),
    KEY ordering_key (ordering_key, dead_at, seq)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
