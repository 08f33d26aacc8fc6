//! The table: its name, its shape, and the statements on it.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::failure::{failed, is_column_there};
use crate::protocol::FENCE_BITS;
use crate::store::sql::{InvalidTableName, LATER, Shape, check_name};
use crate::store::{StoreError, StoreErrorKind};

/// The table's name and the statements on it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    name: Arc<str>,
    pub(super) claim: Arc<str>,
    pub(super) look: Arc<str>,
    pub(super) heartbeat: Arc<str>,
    pub(super) complete: Arc<str>,
    pub(super) release: Arc<str>,
    pub(super) purge: Arc<str>,
    pub(super) answer: Arc<str>,
    pub(super) claim_all: Arc<str>,
    pub(super) complete_all: Arc<str>,
}

/// The store's time: that of a clock given for tests, else SQLite's own. Within one statement it
/// stands still.
const NOW: &str = "coalesce(?1, CAST(round(unixepoch('subsec') * 1000) AS INTEGER))";

macro_rules! sql {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/sqlite/", $file))
    };
}

const MIGRATION: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/migrations/sqlite/0001_processed_messages.sql"
));
const MIGRATION_OF_TRACES: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/migrations/sqlite/0003_processed_messages_trace.sql"
));

impl Table {
    pub(crate) fn new(name: &str) -> Result<Self, InvalidTableName> {
        check_name(name)?;
        let fill = |sql: &str| -> Arc<str> {
            sql.replace("{table}", name)
                .replace("{now}", NOW)
                .replace("{fence_bits}", &FENCE_BITS.to_string())
                .into()
        };
        Ok(Self {
            name: name.into(),
            claim: fill(sql!("claim.sql")),
            look: fill(sql!("look.sql")),
            heartbeat: fill(sql!("heartbeat.sql")),
            complete: fill(sql!("complete.sql")),
            release: fill(sql!("release.sql")),
            purge: fill(sql!("purge.sql")),
            answer: fill(sql!("answer.sql")),
            claim_all: fill(sql!("claim_all.sql")),
            complete_all: fill(sql!("complete_all.sql")),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes the table if it is missing.
    pub(super) async fn create(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        self.migrate(MIGRATION, connection).await
    }

    /// Adds the column for traces, unless somebody else has done so meanwhile.
    pub(super) async fn add_traces(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let added = self.migrate(MIGRATION_OF_TRACES, connection).await;
        added.or_else(|error| if is_column_there(&error) { Ok(()) } else { Err(error) })
    }

    async fn migrate(&self, sql: &str, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let sql = sql.replace("{table}", &self.name);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }

    /// Whether the table is there.
    ///
    /// # Errors
    /// When it is there in another shape.
    pub(super) async fn check(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<Shape, StoreError> {
        let checking = || failed("check the table of processed messages");
        let columns = sqlx::query("SELECT name, type, \"notnull\", pk FROM pragma_table_info(?1)")
            .bind(&*self.name)
            .fetch_all(&mut *connection)
            .await
            .map_err(checking())?;
        if columns.is_empty() {
            return Ok(Shape::Missing);
        }
        let mut wrong = Vec::new();
        for wanted in COLUMNS {
            let Some(found) = columns.iter().find(|row| row.get::<&str, _>(0) == wanted.name)
            else {
                wrong.push(format!("there is no column {:?}", wanted.name));
                continue;
            };
            let found = Column {
                name: wanted.name,
                kind: found.get(1),
                required: found.get(2),
                key: found.get(3),
            };
            if found != wanted {
                wrong.push(format!("the column {wanted} is {found}"));
            }
        }
        let of_others: Vec<&str> = columns
            .iter()
            .filter(|row| row.get::<bool, _>(2))
            .map(|row| row.get(0))
            .filter(|name| COLUMNS.iter().all(|wanted| wanted.name != *name))
            .collect();
        if !of_others.is_empty() {
            wrong.push(format!("it requires columns that are unknown here: {of_others:?}"));
        }
        let folding: Vec<String> = sqlx::query_scalar(
            "SELECT x.name || ' ' || x.coll FROM pragma_index_list(?1) AS i, \
             pragma_index_xinfo(i.name) AS x \
             WHERE i.origin = 'pk' AND x.key AND x.coll <> 'BINARY'",
        )
        .bind(&*self.name)
        .fetch_all(connection)
        .await
        .map_err(checking())?;
        if !folding.is_empty() {
            wrong.push(format!("ids would not be compared byte by byte ({})", folding.join(", ")));
        }
        let later = columns.iter().find(|row| row.get::<&str, _>(0) == LATER);
        let kind = later.map(|row| row.get::<&str, _>(1));
        if let Some(kind) = kind.filter(|kind| *kind != "TEXT") {
            wrong.push(format!("the column {LATER:?} TEXT is {kind}"));
        }
        match kind {
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
    column("scope", "TEXT", true, 1),
    column("message_id", "TEXT", true, 2),
    column("status", "TEXT", true, 0),
    column("processed_at", "TEXT", false, 0),
    column("service_name", "TEXT", true, 0),
    column("subscription", "TEXT", true, 0),
    column("instance", "TEXT", true, 0),
    column("correlation_id", "TEXT", false, 0),
    column("message_type", "TEXT", true, 0),
    column("fingerprint", "BLOB", false, 0),
    column("owner", "BLOB", true, 0),
    column("fence", "INTEGER", true, 0),
    column("attempt", "INTEGER", true, 0),
    column("taken_over", "INTEGER", true, 0),
    column("claimed_at", "INTEGER", true, 0),
    column("lease_until", "INTEGER", false, 0),
    column("expires_at", "INTEGER", false, 0),
    column("reply", "BLOB", false, 0),
];
