//! The table: its name, its shape, and the statements on it.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::failure::failed;
use crate::protocol::FENCE_BITS;
use crate::store::sql::{InvalidTableName, LATER, Shape, check_name};
use crate::store::{StoreError, StoreErrorKind};

/// The table's name and the statements on it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    name: Arc<str>,
    pub(super) claim: Arc<str>,
    pub(super) insert: Arc<str>,
    pub(super) insert_one: Arc<str>,
    pub(super) heartbeat: Arc<str>,
    pub(super) complete: Arc<str>,
    pub(super) release: Arc<str>,
    pub(super) purge: Arc<str>,
    pub(super) answer: Arc<str>,
    columns: Arc<str>,
    migration: Arc<str>,
    migration_of_traces: Arc<str>,
}

macro_rules! sql {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/postgres/", $file))
    };
}

const MIGRATION: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/migrations/postgres/0001_processed_messages.sql"
));
const MIGRATION_OF_TRACES: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/migrations/postgres/0003_processed_messages_trace.sql"
));

/// Names the lock under which tables are made: any number that nobody else uses.
const MIGRATING: i64 = 0x006d_6d61_7465_0001;

impl Table {
    pub(crate) fn new(name: &str) -> Result<Self, InvalidTableName> {
        check_name(name)?;
        let fill = |sql: &str| -> Arc<str> {
            sql.replace("{clock}", sql!("clock.sql").trim_end())
                .replace("{free}", sql!("free.sql").trim_end())
                .replace("{table}", name)
                .replace("{fence_bits}", &FENCE_BITS.to_string())
                .into()
        };
        Ok(Self {
            name: name.into(),
            claim: fill(sql!("claim.sql")),
            insert: fill(sql!("insert.sql")),
            insert_one: fill(sql!("insert_one.sql")),
            heartbeat: fill(sql!("heartbeat.sql")),
            complete: fill(sql!("complete.sql")),
            release: fill(sql!("release.sql")),
            purge: fill(sql!("purge.sql")),
            answer: fill(sql!("answer.sql")),
            columns: fill(sql!("columns.sql")),
            migration: fill(MIGRATION),
            migration_of_traces: fill(MIGRATION_OF_TRACES),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes of the table what is missing, one instance after the other: PostgreSQL's own
    /// `IF NOT EXISTS` fails when two are at it.
    pub(super) async fn create(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let making = || failed("make the table of processed messages");
        let mut transaction = connection.begin().await.map_err(making())?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(MIGRATING)
            .execute(&mut *transaction)
            .await
            .map_err(making())?;
        let migrations = match self.check(&mut transaction).await? {
            Shape::Missing => &[&self.migration, &self.migration_of_traces][..],
            Shape::Earlier => &[&self.migration_of_traces],
            Shape::Present => &[],
        };
        for migration in migrations {
            sqlx::raw_sql(AssertSqlSafe(Arc::clone(migration)))
                .execute(&mut *transaction)
                .await
                .map_err(making())?;
        }
        transaction.commit().await.map_err(making())
    }

    /// Whether the table is there.
    ///
    /// # Errors
    /// When it is there in another shape.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<Shape, StoreError> {
        let columns: Vec<(String, String, bool, bool, i64, bool)> =
            sqlx::query_as(AssertSqlSafe(self.columns.clone()))
                .fetch_all(connection)
                .await
                .map_err(failed("check the table of processed messages"))?;
        if columns.is_empty() {
            return Ok(Shape::Missing);
        }
        let mut wrong = Vec::new();
        for wanted in COLUMNS {
            let Some((_, kind, required, _, key, is_exact)) =
                columns.iter().find(|(name, ..)| name == wanted.name)
            else {
                wrong.push(format!("there is no column {:?}", wanted.name));
                continue;
            };
            let found = Column { name: wanted.name, kind, required: *required, key: *key };
            if found != wanted {
                wrong.push(format!("the column {wanted} is {found}"));
            }
            if found.key > 0 && !is_exact {
                let name = wanted.name;
                wrong.push(format!("ids would not be compared byte by byte ({name:?})"));
            }
        }
        let is_known = |name: &str| COLUMNS.iter().any(|wanted| wanted.name == name);
        let others = columns.iter().filter(|(name, ..)| !is_known(name));
        let of_others: Vec<&str> = others
            .filter(|(_, _, _, must_be_given, key, _)| *must_be_given || *key > 0)
            .map(|(name, ..)| name.as_str())
            .collect();
        if !of_others.is_empty() {
            wrong.push(format!("it requires columns that are unknown here: {of_others:?}"));
        }
        let later = columns.iter().find(|(name, ..)| name == LATER);
        if let Some((_, kind, ..)) = later.filter(|(_, kind, ..)| kind != "text") {
            wrong.push(format!("the column {LATER:?} text is {kind}"));
        }
        match later {
            _ if !wrong.is_empty() => Err(self.wrong_shape(&wrong)),
            Some(_) => Ok(Shape::Present),
            None => Ok(Shape::Earlier),
        }
    }

    fn wrong_shape(&self, wrong: &[String]) -> StoreError {
        let text = format!(
            "the table {:?} has another shape: {}; rename it, or give the records a table of their \
             own with .table(…)",
            self.name,
            wrong.join("; ")
        );
        StoreError::new(StoreErrorKind::Permanent, "use the table of processed messages", text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Column<'a> {
    name: &'a str,
    kind: &'a str,
    required: bool,
    /// Its place in the primary key, from 1.
    key: i64,
}

impl std::fmt::Display for Column<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.name, self.kind)?;
        f.write_str(if self.required { " NOT NULL" } else { "" })?;
        if self.key > 0 { write!(f, ", number {} of the primary key", self.key) } else { Ok(()) }
    }
}

const fn column(
    name: &'static str,
    kind: &'static str,
    required: bool,
    key: i64,
) -> Column<'static> {
    Column { name, kind, required, key }
}

const COLUMNS: [Column<'static>; 18] = [
    column("scope", "text", true, 1),
    column("message_id", "text", true, 2),
    column("status", "text", true, 0),
    column("processed_at", "timestamp with time zone", false, 0),
    column("service_name", "text", true, 0),
    column("subscription", "text", true, 0),
    column("instance", "text", true, 0),
    column("correlation_id", "text", false, 0),
    column("message_type", "text", true, 0),
    column("fingerprint", "bytea", false, 0),
    column("owner", "bytea", true, 0),
    column("fence", "bigint", true, 0),
    column("attempt", "bigint", true, 0),
    column("taken_over", "boolean", true, 0),
    column("claimed_at", "bigint", true, 0),
    column("lease_until", "bigint", false, 0),
    column("expires_at", "bigint", false, 0),
    column("reply", "bytea", false, 0),
];
