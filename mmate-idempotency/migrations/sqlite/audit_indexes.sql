-- On request only: for questions by conversation and by time in a large table.
CREATE INDEX IF NOT EXISTS "{table}_correlation_id" ON "{table}" (correlation_id, claimed_at)
    WHERE correlation_id IS NOT NULL;

CREATE INDEX IF NOT EXISTS "{table}_claimed_at" ON "{table}" (claimed_at);
