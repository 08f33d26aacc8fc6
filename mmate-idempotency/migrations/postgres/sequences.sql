-- The last number of each key of each sequence. Many instances may come here at once.
DO $make$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('mmate:{table}'));
    CREATE TABLE IF NOT EXISTS "{table}" (
        sequence_name text COLLATE "C" NOT NULL,
        sequence_key  text COLLATE "C" NOT NULL,
        last          bigint           NOT NULL,
        PRIMARY KEY (sequence_name, sequence_key)
    ) WITH (fillfactor = 70);
END
$make$;
