SELECT
    coalesce($1::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now,
    set_config('lock_timeout', coalesce($2::text, current_setting('lock_timeout')), true)
