//! The servers of a soak, and who uses them.

use std::path::Path;
use std::sync::Mutex;

use mmate_test_support::{PostgreSql, RabbitMq, Redis};
use sqlx::{Connection, PgConnection};

use super::consumer::{Role, TABLE};
use super::fleet::Fleet;
use super::options::Name;
use super::plan::Plan;
use crate::proxy::Proxy;

/// The servers of a soak, and who uses them.
#[derive(Debug)]
pub struct Stage {
    pub(crate) broker: Mutex<RabbitMq>,
    pub(crate) postgres: Option<Mutex<PostgreSql>>,
    pub(crate) redis: Option<Mutex<Redis>>,
    /// Between consumers and broker.
    pub(crate) proxy: Proxy,
    pub(crate) fleet: Fleet,
    /// Without the proxy.
    pub(crate) amqp: String,
    postgres_url: Option<String>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is acknowledged is on disk: nothing that a store has answered may be gone after a SIGKILL.
const APPEND_ONLY: &str = "appendonly yes\nappendfsync always";

impl Stage {
    pub(super) async fn set(plan: &Plan, journals: &Path) -> Result<Self, Failure> {
        let broker = RabbitMq::start()?;
        let with_redis = plan.name == Name::Redis;
        let postgres = (!with_redis).then(PostgreSql::start).transpose()?;
        let redis = with_redis.then(|| Redis::options().config(APPEND_ONLY).start()).transpose()?;
        let amqp = broker.url();
        let proxy = Proxy::before(&amqp).await;
        let postgres_url = postgres.as_ref().map(PostgreSql::url);
        let role = Role {
            name: plan.name,
            instance: String::new(),
            amqp: proxy.url(),
            postgres: postgres_url.clone(),
            redis: redis.as_ref().map(Redis::url),
            journal: journals.to_owned(),
        };
        let program = std::env::current_exe()?;
        let fleet = Fleet::new(program, role, journals.to_owned(), plan.processes);
        let stage = Self {
            broker: Mutex::new(broker),
            postgres: postgres.map(Mutex::new),
            redis: redis.map(Mutex::new),
            proxy,
            fleet,
            amqp,
            postgres_url,
        };
        if stage.postgres_url.is_some() {
            sqlx::raw_sql(TABLE).execute(&mut stage.database().await?).await?;
        }
        Ok(stage)
    }

    /// A session in PostgreSQL.
    pub(crate) async fn database(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(self.postgres_url.as_deref().unwrap_or_default()).await
    }
}
