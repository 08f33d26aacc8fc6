//! Questions to the table in PostgreSQL.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Postgres};

use super::PostgresStore;
use super::failure::failed;
use super::records::within;
use crate::audit::{Audit, AuditQuery, ProcessedMessage};
use crate::store::StoreError;
use crate::store::sql::audit::{Dialect, select};

const DIALECT: Dialect = Dialect {
    quote: '"',
    text: ("", ""),
    processed_at: "round(extract(epoch FROM processed_at) * 1000)::bigint",
    now: "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
};

const INDEXES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres/audit_indexes.sql"));

#[async_trait]
impl Audit for PostgresStore {
    async fn find(&self, query: &AuditQuery) -> Result<Vec<ProcessedMessage>, StoreError> {
        const ASKING: &str = "look into the processed messages";
        within(ASKING, async {
            let records = self.records();
            let mut hand = records.hand(ASKING).await?;
            let mut sql = select::<Postgres>(&DIALECT, records.table.name(), query, records.now());
            let found = sql.build_query_as().fetch_all(&mut *hand).await;
            hand.give_back(found).map_err(failed(ASKING))
        })
        .await
    }

    async fn create_indexes(&self) -> Result<(), StoreError> {
        const MAKING: &str = "make the indexes of the processed messages";
        let records = self.records();
        let mut hand = records.hand(MAKING).await?;
        let mut made = Ok(());
        // One by one: what is made without keeping others from the table cannot be in a transaction.
        for statement in INDEXES.split(';').filter(|part| part.contains("CREATE")) {
            let sql = statement.replace("{table}", records.table.name());
            made = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *hand).await.map(drop);
            if made.is_err() {
                break;
            }
        }
        hand.give_back(made).map_err(failed(MAKING))
    }
}
