-- The last number of each key of each sequence. Keys are bytes, so that case, accents and trailing
-- spaces make different ones.
CREATE TABLE IF NOT EXISTS `{table}` (
    sequence_name VARBINARY(255) NOT NULL,
    sequence_key  VARBINARY(255) NOT NULL,
    last          BIGINT         NOT NULL,
    PRIMARY KEY (sequence_name, sequence_key)
) ENGINE = InnoDB;
