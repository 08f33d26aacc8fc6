//! Questions to the table.

use std::time::{Duration, SystemTime};

use sqlx::{ColumnIndex, Database, Decode, Encode, FromRow, QueryBuilder, Type};

use crate::audit::{AuditQuery, ProcessedMessage, ProcessedStatus};

/// What differs between databases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    /// Around the table's name.
    pub(crate) quote: char,
    /// Turns a column of bytes into text, where ids are bytes: before and after its name.
    pub(crate) text: (&'static str, &'static str),
    /// The column `processed_at` in milliseconds since 1970.
    pub(crate) processed_at: &'static str,
    /// The database's time in milliseconds since 1970.
    pub(crate) now: &'static str,
}

/// The statement for a question. `now` is a clock for tests; without one the database's counts.
pub(crate) fn select<DB>(
    dialect: &Dialect,
    table: &str,
    query: &AuditQuery,
    now: Option<i64>,
) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
    Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
{
    let Dialect { quote, text: (text, end), processed_at, now: its_now } = dialect;
    let mut sql = QueryBuilder::new(format!(
        "SELECT {text}scope{end} AS scope, {text}message_id{end} AS message_id, status, \
         {processed_at} AS since, claimed_at, service_name, subscription, instance, \
         correlation_id, message_type, trace_parent, attempt, fence, taken_over, lease_until, expires_at, \
         reply IS NOT NULL AS has_reply, coalesce("
    ));
    sql.push_bind(now).push(format!(
        ", {its_now}) AS now FROM {quote}{table}{quote} AS t \
         WHERE (expires_at IS NULL OR expires_at > coalesce("
    ));
    sql.push_bind(now).push(format!(", {its_now}))"));
    let ids = [("scope", &query.scope), ("message_id", &query.message_id)];
    for (column, wanted) in ids {
        if let Some(wanted) = wanted {
            sql.push(format!(" AND t.{column} = ")).push_bind(wanted.clone());
        }
    }
    let status = query.status.map(|status| status.as_str().to_owned());
    let texts = [
        ("correlation_id", &query.correlation_id),
        ("service_name", &query.service),
        ("message_type", &query.message_type),
        ("status", &status),
    ];
    for (column, wanted) in texts {
        if let Some(wanted) = wanted {
            sql.push(format!(" AND {column} = ")).push_bind(wanted.clone());
        }
    }
    if let Some(since) = query.since {
        sql.push(" AND claimed_at >= ").push_bind(millis(since));
    }
    if let Some(until) = query.until {
        sql.push(" AND claimed_at < ").push_bind(millis(until));
    }
    if let Some((time, scope, message_id)) = &query.after {
        sql.push(" AND (claimed_at > ").push_bind(millis(*time));
        sql.push(" OR claimed_at = ").push_bind(millis(*time));
        sql.push(" AND (t.scope > ").push_bind(scope.clone());
        sql.push(" OR t.scope = ").push_bind(scope.clone());
        sql.push(" AND t.message_id > ").push_bind(message_id.clone());
        sql.push("))");
    }
    sql.push(" ORDER BY claimed_at, t.scope, t.message_id LIMIT ").push_bind(query.at_most());
    sql
}

impl<'r, R> FromRow<'r, R> for ProcessedMessage
where
    R: sqlx::Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        let status = match row.try_get::<String, _>("status")?.as_str() {
            "done" => ProcessedStatus::Done,
            "released" => ProcessedStatus::Released,
            _ => ProcessedStatus::InProgress,
        };
        let now: i64 = row.try_get("now")?;
        let lease: Option<i64> = row.try_get("lease_until")?;
        let attempt: i64 = row.try_get("attempt")?;
        Ok(Self {
            scope: row.try_get("scope")?,
            message_id: row.try_get("message_id")?,
            status,
            processed_at: row.try_get::<Option<i64>, _>("since")?.map(moment),
            claimed_at: moment(row.try_get("claimed_at")?),
            service: row.try_get("service_name")?,
            subscription: row.try_get("subscription")?,
            instance: row.try_get("instance")?,
            correlation_id: row.try_get("correlation_id")?,
            message_type: row.try_get("message_type")?,
            trace: row
                .try_get::<Option<String>, _>("trace_parent")?
                .and_then(|text| text.parse().ok()),
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            fence: row.try_get::<i64, _>("fence")?.unsigned_abs(),
            taken_over: row.try_get("taken_over")?,
            lease_is_over: status == ProcessedStatus::InProgress
                && lease.is_some_and(|until| until <= now),
            expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(moment),
            has_reply: row.try_get("has_reply")?,
        })
    }
}

fn moment(millis: i64) -> SystemTime {
    let since = Duration::from_millis(millis.unsigned_abs());
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
