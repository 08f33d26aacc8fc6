//! Tables of any size, half of whose records are over.
//!
//! The ids are spread over all that ids can be, in an order that has nothing to do with the order in
//! which the records are over: the number `a` of a record by the one order and `b` by the other are
//! permutations of each other, `b = a * STRIDE % rows`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use mmate_idempotency::{MySqlStore, PostgresStore, SqliteStore, Store};
use mmate_test_support::{MariaDb, PostgreSql, mariadb_url, postgres_url, unique};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, SqliteConnection};
use tempfile::TempDir;

pub(crate) const SCOPE: &str = "shop/orders";
/// A prime, so that the numbers below any other number are permuted by it.
const STRIDE: u64 = 2_654_435_761;
/// So many rows are written in one statement.
const PART: u64 = 500_000;

#[async_trait]
pub(crate) trait Database: Sync {
    fn name(&self) -> &'static str;
    /// A store with connections of its own.
    async fn store(&self) -> Arc<dyn Store>;
    async fn fill(&self, rows: u64);
    async fn count(&self) -> u64;
    /// How many the server has ended; 0 if others use it as well.
    async fn deadlocks(&self) -> u64;
    fn ids(&self) -> Ids;
}

/// The ids of a table that was filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    rows: u64,
    /// Whether records lie in the order in which they are over, else in that of their ids.
    by_time: bool,
}

impl Ids {
    /// One of a record that is over, or was until it was purged or claimed.
    pub(crate) fn over(self) -> String {
        loop {
            let place = fastrand::u64(0..self.rows);
            let other = place * STRIDE % self.rows;
            let (id, time) = if self.by_time { (other, place) } else { (place, other) };
            if time < self.rows / 2 {
                return format!("{:08x}{:024x}", id * (u64::from(u32::MAX) / self.rows), 0);
            }
        }
    }

    pub(crate) fn new_one() -> String {
        format!("{:032x}", fastrand::u128(..))
    }
}

/// What is written of a record, and when it was done.
const COLUMNS: &str = "scope, message_id, status, service_name, subscription, instance, \
                       message_type, fingerprint, owner, fence, attempt, taken_over, claimed_at, \
                       expires_at";

/// The beginnings of the parts in which rows are written, and their ends.
fn parts(rows: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..rows.div_ceil(PART)).map(move |n| (n * PART, ((n + 1) * PART).min(rows)))
}

pub(crate) struct OnPostgres {
    server: Option<PostgreSql>,
    table: String,
    rows: AtomicU64,
}

impl OnPostgres {
    /// With a server of its own that writes to its disk, or the one that tests share.
    pub(crate) async fn new(alone: bool) -> Self {
        let config = "fsync = on\nshared_buffers = 1GB\nmax_wal_size = 8GB";
        let server = alone.then(|| PostgreSql::options().config(config).start().unwrap());
        Self { server, table: unique("purging"), rows: AtomicU64::new(0) }
    }

    fn url(&self) -> String {
        self.server.as_ref().map_or_else(postgres_url, PostgreSql::url)
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    async fn run(&self, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection().await).await.unwrap();
    }

    /// How often the index of what is over was read, and how many rows were removed.
    pub(crate) async fn index_scans(&self) -> (i64, i64) {
        let sql = "SELECT i.idx_scan, t.n_tup_del FROM pg_stat_user_indexes AS i \
                   JOIN pg_stat_user_tables AS t USING (relid) \
                   WHERE t.relname = $1 AND i.indexrelname LIKE '%expires_at_idx'";
        let query = sqlx::query_as(sql).bind(&self.table);
        query.fetch_one(&mut self.connection().await).await.unwrap()
    }

    async fn number(&self, sql: String) -> u64 {
        let number: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap();
        number.unsigned_abs()
    }
}

#[async_trait]
impl Database for OnPostgres {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    async fn store(&self) -> Arc<dyn Store> {
        let store = PostgresStore::connect(&self.url()).await.unwrap();
        Arc::new(store.table(&self.table).unwrap())
    }

    /// In the order of time, as they come in life. Indexes are made afterwards.
    async fn fill(&self, rows: u64) {
        self.rows.store(rows, Ordering::Relaxed);
        let (table, step) = (&self.table, u64::from(u32::MAX) / rows);
        self.run(format!(
            r#"ALTER TABLE "{table}" DROP CONSTRAINT "{table}_pkey";
            DROP INDEX "{table}_expires_at_idx""#
        ))
        .await;
        for (from, to) in parts(rows) {
            self.run(format!(
                r#"INSERT INTO "{table}" ({COLUMNS}, processed_at)
                SELECT '{SCOPE}', lpad(to_hex(t * {STRIDE} % {rows} * {step}), 8, '0') || repeat('0', 24),
                    'done', 'shop', 'orders', 'a', 'OrderCreated', decode(md5(t::text), 'hex'),
                    decode(md5(t::text), 'hex'), (now << 8) + t, 1, false, now - 1000,
                    CASE WHEN t < {rows} / 2 THEN now - {rows} + t ELSE now + 3600000 + t END,
                    to_timestamp(now / 1000)
                FROM generate_series({from}::bigint, {to}::bigint - 1) AS t,
                    (SELECT floor(extract(epoch FROM now()) * 1000)::bigint AS now) AS clock"#
            ))
            .await;
        }
        self.run(format!(
            r#"ALTER TABLE "{table}" ADD PRIMARY KEY (scope, message_id);
            CREATE INDEX ON "{table}" (expires_at) WHERE expires_at IS NOT NULL"#
        ))
        .await;
        self.run(format!(r#"VACUUM ANALYZE "{table}""#)).await;
        self.run("CHECKPOINT".to_owned()).await;
    }

    async fn count(&self) -> u64 {
        self.number(format!(r#"SELECT count(*) FROM "{}""#, self.table)).await
    }

    async fn deadlocks(&self) -> u64 {
        if self.server.is_none() {
            return 0;
        }
        let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        self.number(sql.to_owned()).await
    }

    fn ids(&self) -> Ids {
        Ids { rows: self.rows.load(Ordering::Relaxed), by_time: true }
    }
}

pub(crate) struct OnMariaDb {
    server: Option<MariaDb>,
    table: String,
    rows: AtomicU64,
}

impl OnMariaDb {
    /// With a server of its own that writes to its disk, or the one that tests share.
    pub(crate) async fn new(alone: bool) -> Self {
        let config = "innodb_buffer_pool_size = 1G\ninnodb_log_file_size = 2G\n\
                      innodb_flush_log_at_trx_commit = 1";
        let server = alone.then(|| MariaDb::options().config(config).start().unwrap());
        let table = unique("purging").replace(['-', '.'], "_");
        Self { server, table, rows: AtomicU64::new(0) }
    }

    fn url(&self) -> String {
        self.server.as_ref().map_or_else(mariadb_url, MariaDb::url)
    }

    async fn connection(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.url()).await.unwrap()
    }

    async fn run(&self, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection().await).await.unwrap();
    }
}

#[async_trait]
impl Database for OnMariaDb {
    fn name(&self) -> &'static str {
        "MariaDB"
    }

    async fn store(&self) -> Arc<dyn Store> {
        let store = MySqlStore::connect(self.url()).await.unwrap();
        Arc::new(store.table(&self.table).unwrap())
    }

    /// In the order of the ids, in which the table keeps them. The index is made afterwards.
    async fn fill(&self, rows: u64) {
        self.rows.store(rows, Ordering::Relaxed);
        let (table, step) = (&self.table, u64::from(u32::MAX) / rows);
        self.run(format!("ALTER TABLE `{table}` DROP KEY expires_at")).await;
        for (from, to) in parts(rows) {
            let last = to - 1;
            self.run(format!(
                "INSERT INTO `{table}` ({COLUMNS}, processed_at)
                SELECT '{SCOPE}', RPAD(LPAD(LOWER(HEX(seq * {step})), 8, '0'), 32, '0'),
                    'done', 'shop', 'orders', 'a', 'OrderCreated', UNHEX(MD5(seq)),
                    UNHEX(MD5(seq)), (now << 8) + seq, 1, FALSE, now - 1000,
                    IF(seq * {STRIDE} % {rows} < {rows} DIV 2,
                        now - {rows} + seq * {STRIDE} % {rows},
                        now + 3600000 + seq * {STRIDE} % {rows}),
                    UTC_TIMESTAMP(3)
                FROM seq_{from}_to_{last}, (SELECT UNIX_TIMESTAMP() * 1000 AS now) AS clock"
            ))
            .await;
        }
        self.run(format!("ALTER TABLE `{table}` ADD KEY expires_at (expires_at)")).await;
        self.run(format!("ANALYZE TABLE `{table}`")).await;
    }

    async fn count(&self) -> u64 {
        let sql = format!("SELECT count(*) FROM `{}`", self.table);
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap();
        count.unsigned_abs()
    }

    async fn deadlocks(&self) -> u64 {
        if self.server.is_none() {
            return 0;
        }
        let sql = "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS \
                   WHERE VARIABLE_NAME = 'INNODB_DEADLOCKS'";
        let count: i64 =
            sqlx::query_scalar(sql).fetch_one(&mut self.connection().await).await.unwrap();
        count.unsigned_abs()
    }

    fn ids(&self) -> Ids {
        Ids { rows: self.rows.load(Ordering::Relaxed), by_time: false }
    }
}

pub(crate) struct OnSqlite {
    folder: TempDir,
    rows: AtomicU64,
}

impl OnSqlite {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), rows: AtomicU64::new(0) }
    }

    async fn connection(&self) -> SqliteConnection {
        let file = self.folder.path().join("records.db");
        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap()
    }
}

const TABLE: &str = "processed_messages";

#[async_trait]
impl Database for OnSqlite {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    async fn store(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(self.folder.path().join("records.db")).await.unwrap())
    }

    /// In the order of the ids, in which the table keeps them. The index is made afterwards.
    async fn fill(&self, rows: u64) {
        self.rows.store(rows, Ordering::Relaxed);
        let step = u64::from(u32::MAX) / rows;
        let mut connection = self.connection().await;
        let mut run = async |sql: String| {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        };
        run(format!("DROP INDEX {TABLE}_expires_at")).await;
        for (from, to) in parts(rows) {
            run(format!(
                "WITH RECURSIVE clock AS (
                    SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now
                ), seq (n) AS (
                    SELECT {from} UNION ALL SELECT n + 1 FROM seq WHERE n < {to} - 1
                )
                INSERT INTO {TABLE} ({COLUMNS}, processed_at)
                SELECT '{SCOPE}', printf('%08x%024x', n * {step}, 0), 'done', 'shop', 'orders', 'a',
                    'OrderCreated', randomblob(16), randomblob(16), (now << 8) + n, 1, 0, now - 1000,
                    iif(n * {STRIDE} % {rows} < {rows} / 2,
                        now - {rows} + n * {STRIDE} % {rows},
                        now + 3600000 + n * {STRIDE} % {rows}),
                    strftime('%Y-%m-%dT%H:%M:%fZ', now / 1000.0, 'unixepoch')
                FROM seq, clock"
            ))
            .await;
        }
        run(format!(
            "CREATE INDEX {TABLE}_expires_at ON {TABLE} (expires_at) WHERE expires_at IS NOT NULL"
        ))
        .await;
        run("PRAGMA wal_checkpoint(TRUNCATE)".to_owned()).await;
    }

    async fn count(&self) -> u64 {
        let sql = format!("SELECT count(*) FROM {TABLE}");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap();
        count.unsigned_abs()
    }

    async fn deadlocks(&self) -> u64 {
        0
    }

    fn ids(&self) -> Ids {
        Ids { rows: self.rows.load(Ordering::Relaxed), by_time: false }
    }
}
