DELETE FROM "{table}" WHERE seq = ?1 AND dead_at IS NOT NULL
