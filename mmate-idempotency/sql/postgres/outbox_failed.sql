UPDATE "{table}" SET
    claim = NULL,
    attempts = attempts + 1,
    error = $1,
    ready_at = {now} + $2,
    dead_at = CASE WHEN $3 = 1 THEN {now} END
WHERE seq = $4 AND claim = $5
