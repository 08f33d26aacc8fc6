//! Questions to the table in MySQL and MariaDB.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, MySql};

use super::MySqlStore;
use super::failure::{failed, unreached};
use super::session::Session;
use crate::audit::{Audit, AuditQuery, ProcessedMessage};
use crate::store::StoreError;
use crate::store::sql::audit::{Dialect, select};

const DIALECT: Dialect = Dialect {
    quote: '`',
    text: ("CONVERT(", " USING utf8mb4)"),
    processed_at: "TIMESTAMPDIFF(MICROSECOND, TIMESTAMP '1970-01-01 00:00:00.000', processed_at) \
                   DIV 1000",
    now: "TIMESTAMPDIFF(MICROSECOND, TIMESTAMP '1970-01-01 00:00:00.000', UTC_TIMESTAMP(3)) DIV 1000",
};

const INDEXES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/mysql/audit_indexes.sql"));

/// MySQL 8 does not know `IF NOT EXISTS` here.
const IS_THERE: &str = "SELECT count(*) FROM information_schema.statistics \
                        WHERE table_schema = DATABASE() AND table_name = ? AND index_name = ?";

#[async_trait]
impl Audit for MySqlStore {
    async fn find(&self, query: &AuditQuery) -> Result<Vec<ProcessedMessage>, StoreError> {
        const ASKING: &str = "look into the processed messages";
        let records = self.records();
        let mut session = Session::of(&records.pool).await.map_err(unreached(ASKING))?;
        let mut sql = select::<MySql>(&DIALECT, &records.table.name, query, records.millis());
        let found = sql.build_query_as().fetch_all(&mut *session).await.map_err(failed(ASKING))?;
        session.settled();
        Ok(found)
    }

    async fn create_indexes(&self) -> Result<(), StoreError> {
        const MAKING: &str = "make the indexes of the processed messages";
        let records = self.records();
        let mut session = Session::of(&records.pool).await.map_err(unreached(MAKING))?;
        let statements = INDEXES.split(';').filter(|part| part.contains("CREATE"));
        for (name, statement) in ["correlation_id", "claimed_at"].into_iter().zip(statements) {
            let is_there: i64 = sqlx::query_scalar(IS_THERE)
                .bind(&*records.table.name)
                .bind(name)
                .fetch_one(&mut *session)
                .await
                .map_err(failed(MAKING))?;
            if is_there == 0 {
                let sql = statement.replace("{table}", &records.table.name);
                let made = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *session).await;
                made.map_err(failed(MAKING))?;
            }
        }
        session.settled();
        Ok(())
    }
}
