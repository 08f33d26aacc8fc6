//! The statements on the table.

use std::sync::Arc;

/// The statements on a table of that name.
#[doc(hidden)]
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "for the outbox only")]
pub struct Statements {
    pub(in crate::outbox) table: Arc<str>,
    pub(super) create: Arc<str>,
    pub(super) check: Arc<str>,
    pub(super) insert: Arc<str>,
    pub(super) claim: Arc<str>,
    pub(super) sent: Arc<str>,
    pub(super) release: Arc<str>,
    pub(super) failed: Arc<str>,
    pub(super) dead: Arc<str>,
    pub(super) retry: Arc<str>,
    pub(super) discard: Arc<str>,
    pub(super) count: Arc<str>,
}

/// The same without a table's name.
pub(super) struct Templates {
    /// The database's time in milliseconds since 1970. It stands still within a statement.
    pub(super) now: &'static str,
    pub(super) create: &'static str,
    pub(super) check: &'static str,
    pub(super) insert: &'static str,
    pub(super) claim: &'static str,
    pub(super) sent: &'static str,
    pub(super) release: &'static str,
    pub(super) failed: &'static str,
    pub(super) dead: &'static str,
    pub(super) retry: &'static str,
    pub(super) discard: &'static str,
    pub(super) count: &'static str,
}

impl Statements {
    /// The name must be an identifier.
    pub(super) fn new(table: &str, templates: &Templates) -> Self {
        let fill = |sql: &str| fill(sql, table, templates.now);
        Self {
            table: table.into(),
            create: fill(templates.create),
            check: fill(templates.check),
            insert: fill(templates.insert),
            claim: fill(templates.claim),
            sent: fill(templates.sent),
            release: fill(templates.release),
            failed: fill(templates.failed),
            dead: fill(templates.dead),
            retry: fill(templates.retry),
            discard: fill(templates.discard),
            count: fill(templates.count),
        }
    }
}

pub(super) fn fill(sql: &str, table: &str, now: &str) -> Arc<str> {
    sql.replace("{table}", table).replace("{now}", now).into()
}

/// The templates of a database, from its folders.
macro_rules! templates {
    ($database:literal, $now:expr) => {
        Templates {
            now: $now,
            create: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/migrations/",
                $database,
                "/0002_outbox_messages.sql"
            )),
            check: sql!($database, "check"),
            insert: sql!($database, "insert"),
            claim: sql!($database, "claim"),
            sent: sql!($database, "sent"),
            release: sql!($database, "release"),
            failed: sql!($database, "failed"),
            dead: sql!($database, "dead"),
            retry: sql!($database, "retry"),
            discard: sql!($database, "discard"),
            count: sql!($database, "count"),
        }
    };
}
pub(super) use templates;

macro_rules! sql {
    ($database:literal, $name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/sql/",
            $database,
            "/outbox_",
            $name,
            ".sql"
        ))
    };
}
pub(super) use sql;
