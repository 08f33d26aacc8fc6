SELECT count(*) - count(dead_at), count(dead_at) FROM "{table}"
