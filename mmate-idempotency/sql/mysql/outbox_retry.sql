UPDATE `{table}` SET dead_at = NULL, attempts = 0, claim = NULL, ready_at = {now}
WHERE seq = ? AND dead_at IS NOT NULL
