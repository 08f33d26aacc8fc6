-- On request only: for questions by conversation and by time in a large table. Claims go on while
-- they are made.
CREATE INDEX correlation_id ON `{table}` (correlation_id, claimed_at);

CREATE INDEX claimed_at ON `{table}` (claimed_at);
