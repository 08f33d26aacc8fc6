SELECT seq, CONVERT(ordering_key USING utf8mb4), head, body, attempts, created_at, {now}
FROM `{table}`
WHERE seq IN ({seqs})
ORDER BY seq
