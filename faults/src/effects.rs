//! The effects: rows in a table, in the database that the consumers share.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqliteConnection, SqlitePool};

/// `effects` has no unique constraint on purpose: a second effect must show.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS effects (
    business_id TEXT NOT NULL, subscription TEXT NOT NULL, attempt INTEGER NOT NULL,
    instance TEXT NOT NULL, seq INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS effects_by_seq ON effects (seq);
CREATE INDEX IF NOT EXISTS effects_by_id ON effects (business_id);
";

/// The table of effects.
#[derive(Debug, Clone)]
pub struct Effects {
    pool: SqlitePool,
}

/// One effect, to be written in the transaction of a handler.
#[derive(Debug)]
pub(crate) struct Effect<'a> {
    pub(crate) business_id: &'a str,
    pub(crate) subscription: &'a str,
    pub(crate) attempt: u32,
    pub(crate) instance: &'a str,
    pub(crate) seq: i64,
}

impl Effects {
    /// Opens the database, and makes the table.
    ///
    /// # Panics
    /// If that fails.
    pub async fn open(path: &Path) -> Self {
        // `NORMAL` loses commits only when the machine fails, and here processes do.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
        sqlx::raw_sql(TABLE).execute(&pool).await.unwrap();
        Self { pool }
    }

    pub(crate) fn pool(&self) -> SqlitePool {
        self.pool.clone()
    }

    /// How often each message had its effect in a subscription.
    ///
    /// # Panics
    /// If the database fails.
    pub async fn of(&self, subscription: &str) -> BTreeMap<String, u64> {
        let counts = "SELECT business_id, count(*) FROM effects WHERE subscription = ? GROUP BY 1";
        let rows: Vec<(String, i64)> =
            sqlx::query_as(counts).bind(subscription).fetch_all(&self.pool).await.unwrap();
        rows.into_iter().map(|(id, count)| (id, count.unsigned_abs())).collect()
    }

    /// How many there are.
    ///
    /// # Panics
    /// If the database fails.
    pub async fn count(&self) -> u64 {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM effects");
        count.fetch_one(&self.pool).await.unwrap().unsigned_abs()
    }

    /// How many an instance had.
    ///
    /// # Panics
    /// If the database fails.
    pub async fn count_by(&self, instance: &str) -> u64 {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM effects WHERE instance = ?");
        count.bind(instance).fetch_one(&self.pool).await.unwrap().unsigned_abs()
    }

    /// Whether a message with this number or a higher one had its effect.
    ///
    /// # Panics
    /// If the database fails.
    pub async fn any_from(&self, seq: i64) -> bool {
        let any =
            sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT 1 FROM effects WHERE seq >= ?)");
        any.bind(seq).fetch_one(&self.pool).await.unwrap()
    }
}

impl Effect<'_> {
    pub(crate) async fn write(self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query("INSERT INTO effects (business_id, subscription, attempt, instance, seq) VALUES (?, ?, ?, ?, ?)")
            .bind(self.business_id)
            .bind(self.subscription)
            .bind(self.attempt)
            .bind(self.instance)
            .bind(self.seq)
            .execute(connection)
            .await?;
        Ok(())
    }
}
