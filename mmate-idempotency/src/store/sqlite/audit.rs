//! Questions to the table in SQLite.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Sqlite};

use super::SqliteStore;
use super::failure::failed;
use crate::audit::{Audit, AuditQuery, ProcessedMessage};
use crate::store::StoreError;
use crate::store::sql::audit::{Dialect, select};

const DIALECT: Dialect = Dialect {
    quote: '"',
    text: ("", ""),
    id: ("", ""),
    processed_at: "CAST(round(unixepoch(processed_at, 'subsec') * 1000) AS INTEGER)",
    now: "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)",
};

const INDEXES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite/audit_indexes.sql"));

#[async_trait]
impl Audit for SqliteStore {
    async fn find(&self, query: &AuditQuery) -> Result<Vec<ProcessedMessage>, StoreError> {
        const ASKING: &str = "look into the processed messages";
        let mut hand = self.hand(ASKING).await?;
        let mut sql = select::<Sqlite>(&DIALECT, self.table.name(), query, self.now());
        let found = sql.build_query_as().fetch_all(&mut *hand).await.map_err(failed(ASKING));
        hand.give_back(found).await
    }

    async fn create_indexes(&self) -> Result<(), StoreError> {
        const MAKING: &str = "make the indexes of the processed messages";
        let mut hand = self.hand(MAKING).await?;
        let sql = INDEXES.replace("{table}", self.table.name());
        let made = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *hand).await;
        hand.give_back(made.map(drop).map_err(failed(MAKING))).await
    }
}
