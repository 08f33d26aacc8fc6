-- The columns of a table: name, type, whether it must be given a value, its place in the primary
-- key from 1, and whether it is compared byte by byte.
SELECT
    a.attname::text,
    format_type(a.atttypid, a.atttypmod),
    a.attnotnull,
    a.attnotnull AND NOT a.atthasdef AND a.attidentity = '',
    coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0)::bigint,
    coalesce(c.collisdeterministic, true)
FROM pg_attribute AS a
LEFT JOIN pg_index AS i ON i.indrelid = a.attrelid AND i.indisprimary
LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
WHERE a.attrelid = to_regclass('"{table}"') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
