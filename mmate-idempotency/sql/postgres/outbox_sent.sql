-- A range of rows that one claim has, all of them confirmed by the broker.
DELETE FROM "{table}" WHERE seq BETWEEN $1 AND $2 AND claim = $3
