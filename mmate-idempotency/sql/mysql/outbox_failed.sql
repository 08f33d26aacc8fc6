UPDATE `{table}` SET
    claim = NULL,
    attempts = attempts + 1,
    error = ?,
    ready_at = {now} + ?,
    dead_at = CASE WHEN ? = 1 THEN {now} END
WHERE seq = ? AND claim = ?
