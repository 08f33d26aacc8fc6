-- The last number of each key of each sequence.
CREATE TABLE IF NOT EXISTS "{table}" (
    sequence_name TEXT    NOT NULL COLLATE BINARY,
    sequence_key  TEXT    NOT NULL COLLATE BINARY,
    last          INTEGER NOT NULL,
    PRIMARY KEY (sequence_name, sequence_key)
) STRICT, WITHOUT ROWID;
