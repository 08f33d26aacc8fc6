UPDATE "{table}" SET dead_at = NULL, attempts = 0, claim = NULL, ready_at = {now}
WHERE seq = $1 AND dead_at IS NOT NULL
