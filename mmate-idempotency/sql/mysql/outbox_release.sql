-- A range of rows that one claim has and did not send.
UPDATE `{table}` SET claim = NULL, ready_at = {now}
WHERE seq BETWEEN ? AND ? AND claim = ?
