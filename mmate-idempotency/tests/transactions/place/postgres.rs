//! A schema in the PostgreSQL of the run.

use futures_util::future::BoxFuture;
use mmate_test_support::{postgres_url, unique};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres};

use super::Place;

/// The address of a schema.
pub(crate) struct Schema(pub(crate) String);

impl Schema {
    /// A new one on that server.
    pub(crate) async fn on(server: &str) -> Self {
        let schema = unique("bench");
        let mut connection = PgConnection::connect(server).await.unwrap();
        Postgres::run(&mut connection, &format!("CREATE SCHEMA {schema}")).await.unwrap();
        Self(format!("{server}?options[search_path]={schema}"))
    }
}

impl Place for Postgres {
    type Home = Schema;

    const BEGIN: &'static str = "BEGIN";
    const IS_RECENT: &'static str = "abs(extract(epoch FROM now() - processed_at)) < 60";

    fn home() -> BoxFuture<'static, Schema> {
        Box::pin(async { Schema::on(&postgres_url()).await })
    }

    fn pool(home: &Schema, connections: u32) -> BoxFuture<'_, PgPool> {
        let pool = PgPoolOptions::new().max_connections(connections);
        Box::pin(async move { pool.connect(&home.0).await.unwrap() })
    }

    fn run<'a>(connection: &'a mut PgConnection, sql: &'a str) -> BoxFuture<'a, sqlx::Result<()>> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        Box::pin(async move { query.execute(connection).await.map(drop) })
    }

    fn number<'a>(
        connection: &'a mut PgConnection,
        sql: &'a str,
    ) -> BoxFuture<'a, sqlx::Result<i64>> {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        Box::pin(async move { query.fetch_one(connection).await })
    }
}
