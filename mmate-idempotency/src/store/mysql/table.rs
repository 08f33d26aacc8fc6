//! The table: its name, and the statements on it.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::failure::is_column_there;
use super::statement::{Many, Statement};
use crate::protocol::FENCE_BITS;
use crate::store::sql::{InvalidTableName, check_name};

/// The table's name and the statements on it.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: Arc<str>,
    pub(super) claim: Many,
    pub(super) look: Many,
    pub(super) heartbeat: Statement,
    pub(super) complete: Statement,
    pub(super) release: Statement,
    pub(super) over: Statement,
    pub(super) answer: Statement,
    pub(super) purge: Statement,
}

/// The store's time: that of a clock given for tests, else the database's own. Within one statement
/// it stands still. It is reckoned from UTC: `NOW()` and `UNIX_TIMESTAMP(…)` go by the session's
/// time zone, in which an hour comes twice a year.
const NOW: &str = "COALESCE(?1, TIMESTAMPDIFF(MICROSECOND, {epoch}, UTC_TIMESTAMP(3)) DIV 1000)";

const EPOCH: &str = "TIMESTAMP '1970-01-01 00:00:00.000'";

macro_rules! sql {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/mysql/", $file))
    };
}

const MIGRATION: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/migrations/mysql/0001_processed_messages.sql"
));
const MIGRATION_OF_TRACES: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/migrations/mysql/0003_processed_messages_trace.sql"
));

impl Table {
    pub(super) fn new(name: &str) -> Result<Self, InvalidTableName> {
        check_name(name)?;
        let fill = |sql: &str| {
            sql.replace("{claimable}", sql!("claimable.sql"))
                .replace("{table}", name)
                .replace("{now}", NOW)
                .replace("{epoch}", EPOCH)
                .replace("{fence_unit}", &(1_u64 << FENCE_BITS).to_string())
        };
        let statement = |sql: &str| Statement::new(&fill(sql));
        Ok(Self {
            name: name.into(),
            claim: Many::new(&fill(sql!("claim.sql")), ", "),
            look: Many::new(&fill(sql!("look.sql")), " OR "),
            heartbeat: statement(sql!("heartbeat.sql")),
            complete: statement(sql!("complete.sql")),
            release: statement(sql!("release.sql")),
            over: statement(sql!("over.sql")),
            answer: statement(sql!("answer.sql")),
            purge: statement(sql!("purge.sql")),
        })
    }

    /// Makes the table if it is missing, its index with it: one statement, so that of many who do
    /// so at once each finds it whole.
    pub(super) async fn create(&self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        self.migrate(MIGRATION, connection).await
    }

    /// Adds the column for traces, unless somebody else has done so meanwhile.
    pub(super) async fn add_traces(&self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        let added = self.migrate(MIGRATION_OF_TRACES, connection).await;
        added.or_else(|error| if is_column_there(&error) { Ok(()) } else { Err(error) })
    }

    async fn migrate(&self, sql: &str, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        let sql = sql.replace("{table}", &self.name);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }
}
