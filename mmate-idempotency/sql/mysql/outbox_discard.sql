DELETE FROM `{table}` WHERE seq = ? AND dead_at IS NOT NULL
