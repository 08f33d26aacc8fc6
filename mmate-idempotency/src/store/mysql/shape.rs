//! The table's shape.

use std::fmt;

use sqlx::mysql::MySqlRow;
use sqlx::{FromRow, MySqlConnection, Row as _};

use super::failure::failed;
use super::table::Table;
use crate::store::sql::{LATER, Shape};
use crate::store::{StoreError, StoreErrorKind};

impl Table {
    /// Whether the table is there.
    ///
    /// # Errors
    /// When it is there in another shape.
    pub(super) async fn check(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<Shape, StoreError> {
        let columns: Vec<Found> = sqlx::query_as(COLUMNS_OF)
            .bind(&*self.name)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed(CHECKING))?;
        if columns.is_empty() {
            return Ok(Shape::Missing);
        }
        let engine: Option<String> = sqlx::query_scalar(ENGINE_OF)
            .bind(&*self.name)
            .fetch_optional(connection)
            .await
            .map_err(failed(CHECKING))?
            .flatten();
        let wrong = complaints(&columns, engine.as_deref());
        if !wrong.is_empty() {
            return Err(self.wrong_shape(&wrong));
        }
        let is_later = columns.iter().any(|found| found.name.eq_ignore_ascii_case(TRACE.name));
        Ok(if is_later { Shape::Present } else { Shape::Earlier })
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

const CHECKING: &str = "check the table of processed messages";

/// What the two databases say in different types is made one.
const COLUMNS_OF: &str = "SELECT CAST(c.COLUMN_NAME AS CHAR) AS name, \
     CAST(LOWER(c.DATA_TYPE) AS CHAR) AS kind, \
     CAST(COALESCE(c.CHARACTER_MAXIMUM_LENGTH, c.DATETIME_PRECISION, 0) AS SIGNED) AS size, \
     CAST(c.IS_NULLABLE = 'NO' AS SIGNED) AS required, \
     CAST(c.COLUMN_DEFAULT IS NOT NULL OR c.EXTRA <> '' AS SIGNED) AS filled, \
     CAST(COALESCE(s.SEQ_IN_INDEX, 0) AS SIGNED) AS place, \
     CAST(s.SUB_PART IS NOT NULL AS SIGNED) AS partly \
     FROM information_schema.COLUMNS AS c LEFT JOIN information_schema.STATISTICS AS s \
     ON s.TABLE_SCHEMA = c.TABLE_SCHEMA AND s.TABLE_NAME = c.TABLE_NAME \
     AND s.COLUMN_NAME = c.COLUMN_NAME AND s.INDEX_NAME = 'PRIMARY' \
     WHERE c.TABLE_SCHEMA = DATABASE() AND c.TABLE_NAME = ? ORDER BY c.ORDINAL_POSITION";

const ENGINE_OF: &str = "SELECT CAST(ENGINE AS CHAR) FROM information_schema.TABLES \
     WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";

/// A column that is there.
#[derive(Debug)]
struct Found {
    name: String,
    kind: String,
    /// In bytes, characters, or digits of a second; larger ones do as well.
    size: i64,
    required: bool,
    /// Whether the database has a value for it where none is given.
    filled: bool,
    /// Its place in the primary key, from 1.
    place: i64,
    /// Whether the key has its beginning only.
    partly: bool,
}

impl FromRow<'_, MySqlRow> for Found {
    fn from_row(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            kind: row.try_get("kind")?,
            size: row.try_get("size")?,
            required: row.try_get("required")?,
            filled: row.try_get("filled")?,
            place: row.try_get("place")?,
            partly: row.try_get("partly")?,
        })
    }
}

#[derive(Debug)]
struct Wanted {
    name: &'static str,
    kind: &'static str,
    size: i64,
    required: bool,
    place: i64,
}

impl Wanted {
    fn is(&self, found: &Found) -> bool {
        self.kind == found.kind
            && self.size <= found.size
            && self.required == found.required
            && self.place == found.place
            && !found.partly
    }
}

/// What is wrong with a table.
fn complaints(columns: &[Found], engine: Option<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    if !engine.is_some_and(|engine| engine.eq_ignore_ascii_case("InnoDB")) {
        let engine = engine.unwrap_or("none, as that of a view");
        wrong.push(format!("its engine is {engine}, and without InnoDB there are no transactions"));
    }
    let is_there =
        |wanted: &Wanted| columns.iter().any(|found| found.name.eq_ignore_ascii_case(wanted.name));
    for wanted in WANTED.into_iter().chain(Some(TRACE).filter(is_there)) {
        match columns.iter().find(|found| found.name.eq_ignore_ascii_case(wanted.name)) {
            None => wrong.push(format!("there is no column {:?}", wanted.name)),
            Some(found) if !wanted.is(found) => {
                wrong.push(format!("the column {wanted} is {found}"));
                if wanted.place > 0 && found.kind != wanted.kind {
                    wrong.push("ids would not be compared byte by byte".to_owned());
                }
            }
            Some(_) => {}
        }
    }
    let is_known = |name: &str| WANTED.iter().any(|wanted| wanted.name.eq_ignore_ascii_case(name));
    let of_others: Vec<&str> = columns
        .iter()
        .filter(|found| found.required && !found.filled || found.place > 0)
        .map(|found| &*found.name)
        .filter(|name| !is_known(name))
        .collect();
    if !of_others.is_empty() {
        wrong.push(format!("it requires columns that are unknown here: {of_others:?}"));
    }
    wrong
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.name)?;
        write_column(f, self.kind, self.size, self.required, self.place)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_column(f, &self.kind, self.size, self.required, self.place)?;
        f.write_str(if self.partly { ", in part only" } else { "" })
    }
}

fn write_column(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    size: i64,
    required: bool,
    place: i64,
) -> fmt::Result {
    f.write_str(kind)?;
    if size > 0 {
        write!(f, "({size})")?;
    }
    f.write_str(if required { " NOT NULL" } else { "" })?;
    if place > 0 { write!(f, ", number {place} of the primary key") } else { Ok(()) }
}

const fn column(name: &'static str, kind: &'static str, size: i64) -> Wanted {
    Wanted { name, kind, size, required: false, place: 0 }
}

const fn required(name: &'static str, kind: &'static str, size: i64) -> Wanted {
    Wanted { name, kind, size, required: true, place: 0 }
}

const fn of_key(name: &'static str, size: i64, place: i64) -> Wanted {
    Wanted { name, kind: "varbinary", size, required: true, place }
}

/// Tables that were made earlier have none.
const TRACE: Wanted = column(LATER, "varchar", 55);

const WANTED: [Wanted; 18] = [
    of_key("scope", 512, 1),
    of_key("message_id", 255, 2),
    required("status", "varchar", 11),
    column("processed_at", "datetime", 3),
    required("service_name", "varchar", 255),
    required("subscription", "varchar", 255),
    required("instance", "varchar", 255),
    column("correlation_id", "varchar", 255),
    required("message_type", "varchar", 255),
    column("fingerprint", "varbinary", 16),
    required("owner", "varbinary", 16),
    required("fence", "bigint", 0),
    required("attempt", "bigint", 0),
    required("taken_over", "tinyint", 0),
    required("claimed_at", "bigint", 0),
    column("lease_until", "bigint", 0),
    column("expires_at", "bigint", 0),
    column("reply", "longblob", 0),
];
