//! The outbox in SQLite: one writer at a time, so a claim is one statement.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Database, Sqlite, SqlitePool};

use super::statements::{Templates, sql, templates};
use super::{
    Ask, Claimed, ClaimedRow, DeadRow, Fates, NewRow, OutboxDatabase, Rows, Statements, Table,
    outbox_database,
};
use crate::store::sqlite::{Gate, Inside};

const TEMPLATES: Templates =
    templates!("sqlite", "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)");

/// The gate that all writers of this process go through, whatever they write.
#[doc(hidden)]
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "for the outbox only")]
pub struct OneByOne(Gate);

outbox_database!(Sqlite, TEMPLATES, {
    const WORD: &'static str = "sqlite";

    type Gate = OneByOne;
    type Turn = Inside;

    fn gate(pool: &SqlitePool) -> OneByOne {
        OneByOne(Gate::of(&pool.connect_options()))
    }

    async fn enter(gate: &OneByOne) -> Inside {
        gate.0.enter().await
    }

    async fn claim(table: &Table<Self>, ask: &Ask) -> sqlx::Result<Vec<Claimed>> {
        let _turn = Self::enter(&table.gate).await;
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
