//! The outbox in PostgreSQL: a claim is one statement, which passes over what others are claiming.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Database, PgPool, Postgres};

use super::statements::{Templates, sql, templates};
use super::{
    Ask, Claimed, ClaimedRow, DeadRow, Fates, NewRow, Open, OutboxDatabase, Rows, Statements,
    Table, outbox_database,
};

const TEMPLATES: Templates =
    templates!("postgres", "(extract(epoch FROM statement_timestamp()) * 1000)::bigint");

outbox_database!(Postgres, TEMPLATES, {
    const WORD: &'static str = "postgres";

    type Gate = Open;
    type Turn = Open;

    fn gate(_pool: &PgPool) -> Open {
        Open
    }

    async fn enter(_gate: &Open) -> Open {
        Open
    }

    async fn claim(table: &Table<Self>, ask: &Ask) -> sqlx::Result<Vec<Claimed>> {
        let sql = AssertSqlSafe(Arc::clone(&table.statements.claim));
        let rows: Vec<ClaimedRow> = sqlx::query_as(sql)
            .bind(&ask.claim[..])
            .bind(ask.lease)
            .bind(ask.at_most)
            .fetch_all(&table.pool)
            .await?;
        let mut rows: Vec<Claimed> = rows.into_iter().map(Claimed::from).collect();
        rows.sort_unstable_by_key(|row| row.seq);
        Ok(rows)
    }
});
