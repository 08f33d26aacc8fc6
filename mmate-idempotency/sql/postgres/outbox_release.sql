-- A range of rows that one claim has and did not send.
UPDATE "{table}" SET claim = NULL, ready_at = {now}
WHERE seq BETWEEN $1 AND $2 AND claim = $3
