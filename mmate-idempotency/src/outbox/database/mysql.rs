//! The outbox in MySQL and MariaDB, whose statements cannot change rows and return them: a claim is
//! a short transaction.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Database, MySql, MySqlConnection, MySqlPool};

use super::statements::{Templates, fill, sql, templates};
use super::{
    Ask, Claimed, ClaimedRow, DeadRow, Fates, NewRow, Open, OutboxDatabase, Rows, Statements,
    Table, outbox_database,
};

const NOW: &str = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";
const TEMPLATES: Templates = templates!("mysql", NOW);

/// How often all that was found may have been taken by others meanwhile.
const ROUNDS: usize = 3;

outbox_database!(MySql, TEMPLATES, {
    const WORD: &'static str = "mysql";

    type Gate = Open;
    type Turn = Open;

    fn gate(_pool: &MySqlPool) -> Open {
        Open
    }

    async fn enter(_gate: &Open) -> Open {
        Open
    }

    async fn claim(table: &Table<Self>, ask: &Ask) -> sqlx::Result<Vec<Claimed>> {
        for _ in 0..ROUNDS {
            let mut connection = table.pool.acquire().await?;
            // Each statement sees what is there at its beginning, and what it passes over stays
            // unlocked. This is for the next transaction only.
            sqlx::query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                .execute(&mut *connection)
                .await?;
            let mut tx = sqlx::Connection::begin(&mut *connection).await?;
            match round(&mut tx, &table.statements, ask).await? {
                Found::Nothing => return Ok(Vec::new()),
                Found::TakenByOthers => tx.rollback().await?,
                Found::Mine(rows) => {
                    tx.commit().await?;
                    return Ok(rows);
                }
            }
        }
        Ok(Vec::new())
    }
});

enum Found {
    Nothing,
    TakenByOthers,
    Mine(Vec<Claimed>),
}

async fn round(
    tx: &mut MySqlConnection,
    statements: &Statements,
    ask: &Ask,
) -> sqlx::Result<Found> {
    let sql = |template, seqs: &[i64]| {
        let seqs: Vec<String> = seqs.iter().map(i64::to_string).collect();
        let sql = fill(template, &statements.table, NOW).replace("{seqs}", &seqs.join(","));
        AssertSqlSafe(sql)
    };
    let found: Vec<i64> = sqlx::query_scalar(sql(sql!("mysql", "find"), &[]))
        .bind(ask.at_most)
        .fetch_all(&mut *tx)
        .await?;
    if found.is_empty() {
        return Ok(Found::Nothing);
    }
    // No two of these statements are the same, so that keeping them prepared would be of no use.
    let mut mine: Vec<i64> = sqlx::query_scalar(sql(sql!("mysql", "lock"), &found))
        .persistent(false)
        .fetch_all(&mut *tx)
        .await?;
    if mine.is_empty() {
        return Ok(Found::TakenByOthers);
    }
    let followers: Vec<(i64, String, i64)> = sqlx::query_as(sql(sql!("mysql", "follow"), &mine))
        .persistent(false)
        .bind(ask.at_most)
        .fetch_all(&mut *tx)
        .await?;
    let mut shut = HashSet::new();
    for (seq, key, ready) in followers {
        if ready == 0 {
            shut.insert(key);
        } else if !shut.contains(&key) {
            mine.push(seq);
        }
    }
    mine.sort_unstable();
    mine.truncate(usize::try_from(ask.at_most).unwrap_or(usize::MAX));
    sqlx::query(sql(&statements.claim, &mine))
        .persistent(false)
        .bind(&ask.claim[..])
        .bind(ask.lease)
        .execute(&mut *tx)
        .await?;
    let rows: Vec<ClaimedRow> = sqlx::query_as(sql(sql!("mysql", "take"), &mine))
        .persistent(false)
        .fetch_all(&mut *tx)
        .await?;
    Ok(Found::Mine(rows.into_iter().map(Claimed::from).collect()))
}
