//! MariaDB, whose tables have a file that does not grow.

use mmate_core::{HandlerError, Meta};
use mmate_idempotency::{MySqlStore, Tracked, Transactional, Tx};
use mmate_test_support::MariaDb;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{MySql, MySqlConnection, MySqlPool, Transaction};

use crate::{Disk, Effects, MESSAGES, fails_closed_and_goes_on};

/// A server of its own, whose space somebody else's table takes.
struct Space {
    server: MariaDb,
    pool: MySqlPool,
    held: Option<Transaction<'static, MySql>>,
}

/// The first file is as it was made; the second one does not grow.
const FIXED: &str = "max_allowed_packet = 32M\n\
    innodb_file_per_table = 0\n\
    innodb_data_file_path = ibdata1:12M;ibdata2:32M\n\
    innodb_undo_tablespaces = 0";

const TABLE_IS_FULL: u16 = 1114;

impl Space {
    async fn new() -> Self {
        let server = MariaDb::options().config(FIXED).start().unwrap();
        let pool = MySqlPool::connect(&server.url()).await.unwrap();
        Self { server, pool, held: None }
    }
}

impl Disk for Space {
    /// A transaction that is open holds a part, and rows of others take the rest.
    async fn fill(&mut self) {
        let sql = "CREATE TABLE filler (bytes LONGBLOB)";
        sqlx::query(sql).execute(&self.pool).await.unwrap();
        let mut held = self.pool.begin().await.unwrap();
        insert(12_000_000, &mut held).await.unwrap();
        self.held = Some(held);
        let mut connection = self.pool.acquire().await.unwrap();
        for bytes in [500_000, 10_000] {
            loop {
                let Err(error) = insert(bytes, &mut connection).await else { continue };
                let error = error.into_database_error().unwrap();
                let number = error.downcast_ref::<MySqlDatabaseError>().number();
                assert_eq!(number, TABLE_IS_FULL, "{error}");
                break;
            }
        }
    }

    /// What was never committed gives its space back, and needs none for that.
    async fn free(&mut self) {
        self.held.take().unwrap().rollback().await.unwrap();
    }
}

async fn insert(bytes: u32, connection: &mut MySqlConnection) -> sqlx::Result<()> {
    let inserting = sqlx::query("INSERT INTO filler VALUES (repeat('x', ?))").bind(bytes);
    inserting.execute(connection).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn tracked_fails_closed_and_goes_on_with_mariadb() {
    let mut space = Space::new().await;
    let effects = Effects::default();
    let strategy = Tracked::new(MySqlStore::connect(space.server.url()).await.unwrap());
    fails_closed_and_goes_on(&mut space, 5, strategy, effects.handler()).await;
    effects.assert_one_each_but_of_those_under_way();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_fail_closed_and_go_on_with_mariadb() {
    let mut space = Space::new().await;
    let pool = space.pool.clone();
    sqlx::query("CREATE TABLE effects (id TEXT)").execute(&pool).await.unwrap();
    let handler = async |meta: Meta, mut tx: Tx<MySql>| {
        let id = meta.id.map(|id| id.to_string());
        sqlx::query("INSERT INTO effects VALUES (?)").bind(id).execute(&mut *tx).await?;
        Ok::<(), HandlerError>(())
    };
    fails_closed_and_goes_on(&mut space, 5, Transactional::new(pool.clone()), handler).await;
    let counted = "SELECT count(*), count(DISTINCT id) FROM effects";
    let counts: (i64, i64) = sqlx::query_as(counted).fetch_one(&pool).await.unwrap();
    assert_eq!(counts, (MESSAGES as i64, MESSAGES as i64));
}
