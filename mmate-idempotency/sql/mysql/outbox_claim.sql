UPDATE `{table}` SET claim = ?, ready_at = {now} + ? WHERE seq IN ({seqs})
