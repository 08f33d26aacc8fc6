//! Records in MySQL and MariaDB.

use mmate_idempotency::MySqlStore;
use mmate_test_support::{mariadb_url, unique};

use super::*;

/// Each test has a table of its own, each store connections of its own.
struct OnMySql {
    table: String,
    /// What each session is told first.
    session: &'static str,
    retention: Retention,
    clock: ManualClock,
}

#[async_trait::async_trait]
impl Harness for OnMySql {
    async fn store(&self) -> Arc<dyn Store> {
        let session = self.session;
        let pool = sqlx::mysql::MySqlPoolOptions::new()
            .max_connections(4)
            .after_connect(move |connection, _| {
                Box::pin(async move { sqlx::raw_sql(session).execute(connection).await.map(drop) })
            })
            .connect(&mariadb_url())
            .await
            .unwrap();
        let store = MySqlStore::new(pool).table(&self.table).unwrap();
        let store = store.retention(self.retention).clock(self.clock.clone());
        store.migrate().await.unwrap();
        Arc::new(store)
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn turn_back(&self, by: Duration) {
        self.clock.turn_back(by);
    }

    async fn now(&self) -> Time {
        self.clock.now()
    }
}

fn with(session: &'static str, retention: Retention) -> OnMySql {
    let table = unique("records").replace(['-', '.'], "_");
    OnMySql { table, session, retention, clock: ManualClock::new() }
}

mod repeatable_read {
    use super::*;

    fn harness(retention: Retention) -> OnMySql {
        with("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", retention)
    }

    mmate_idempotency::store_conformance!(super::harness);
}

mod read_committed {
    use super::*;

    fn harness(retention: Retention) -> OnMySql {
        with("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", retention)
    }

    mmate_idempotency::store_conformance!(super::harness);
}

/// Also with a mode in which statements evaluate their assignments all at once, one that is not
/// strict, and another time zone.
mod serializable_and_odd {
    use super::*;

    fn harness(retention: Retention) -> OnMySql {
        let session = "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE; \
                       SET SESSION sql_mode = 'SIMULTANEOUS_ASSIGNMENT,ANSI', time_zone = '-05:00'";
        with(session, retention)
    }

    mmate_idempotency::store_conformance!(super::harness);
}
