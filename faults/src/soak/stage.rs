//! The servers of a soak, and who uses them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use mmate_core::message::wire;
use mmate_test_support::{PostgreSql, RabbitMq, Redis};
use sqlx::{Connection, PgConnection};
use tokio::sync::RwLock;

use super::clock::{Clock, Library};
use super::consumer::{QUEUE, Role, TABLE};
use super::fleet::Fleet;
use super::options::Name;
use super::plan::Plan;
use crate::nemesis::Nemesis;
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
    /// Read by what is on its way to the broker: who writes has nothing be on its way.
    pub(crate) publishing: Arc<RwLock<()>>,
    postgres_url: Option<String>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is acknowledged is on disk: nothing that a store has answered may be gone after a SIGKILL.
const APPEND_ONLY: &str = "appendonly yes\nappendfsync always";

impl Stage {
    /// So many consumers were started before, whose names are not used again.
    pub(super) async fn set(
        plan: &Plan,
        journals: &Path,
        started_before: u64,
    ) -> Result<Self, Failure> {
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
            clock: Clock::now(),
        };
        let shifted = plan.nemeses.contains(&Nemesis::ClockShift);
        let faketime = shifted.then(Library::find).transpose()?;
        let program = std::env::current_exe()?;
        let journals = journals.to_owned();
        let fleet = Fleet::new(program, role, journals, faketime, plan.processes, started_before);
        let stage = Self {
            broker: Mutex::new(broker),
            postgres: postgres.map(Mutex::new),
            redis: redis.map(Mutex::new),
            proxy,
            fleet,
            amqp,
            publishing: Arc::default(),
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

    /// How many messages are in each queue that has any, dead letters aside, with what is unacknowledged.
    pub(crate) fn queues(&self) -> Result<Vec<(String, u64)>, Failure> {
        const LIST: [&str; 5] = ["-q", "list_queues", "--no-table-headers", "name", "messages"];
        let list = tokio::task::block_in_place(|| self.broker.lock().unwrap().ctl(&LIST))?;
        let count = |line: &str| {
            let (name, messages) = line.split_once('\t')?;
            Some((name.to_owned(), messages.trim().parse().ok()?))
        };
        let letters = wire::dead_letter_queue(QUEUE);
        let counts = list.lines().filter_map(count);
        Ok(counts.filter(|(name, messages)| *name != letters && *messages > 0).collect())
    }
}
