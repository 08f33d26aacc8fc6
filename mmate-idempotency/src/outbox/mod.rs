//! Messages that are published if, and only if, a database transaction commits.

mod batch;
mod database;
mod dead;
mod error;
mod message;
mod metrics;
mod middleware;
mod parcel;
mod sender;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mmate_core::{BatchItem, MessageId, Publisher, RetryPolicy};
use sqlx::Pool;
use tokio_util::sync::CancellationToken;

pub use self::database::OutboxDatabase;
use self::database::{Rows as _, Table};
pub use self::dead::DeadMessage;
pub use self::error::OutboxError;
use self::error::failed;
pub use self::message::OutboxMessage;
use self::metrics::Meters;
pub(crate) use self::middleware::Written;
use self::sender::Sender;
use crate::store::InvalidTableName;
use crate::store::sql::check_name;
use crate::{TransactionalDatabase, Tx};

/// A table of messages that are written in the transaction of an effect and published after its
/// commit: there is either both, or neither.
///
/// As middleware of a subscription that is guarded by [`Transactional`](crate::Transactional), it
/// sends what the handlers have written, and is an argument of theirs:
///
/// ```
/// use mmate_core::{HandlerError, InProcess, Json, Outgoing, Service, Subscription};
/// use mmate_idempotency::{Outbox, Transactional, Tx};
/// use sqlx::{Sqlite, SqlitePool};
///
/// async fn reserve(
///     Json(sku): Json<String>,
///     mut tx: Tx<Sqlite>,
///     outbox: Outbox<Sqlite>,
/// ) -> Result<(), HandlerError> {
///     sqlx::query("INSERT INTO reservations (sku) VALUES (?)").bind(&sku).execute(&mut *tx).await?;
///     let event = Outgoing::event("stock.reserved.eu", "StockReserved", &sku);
///     outbox.publish(&mut tx, event.allow_unroutable()).await?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let url = format!("sqlite://{}?mode=rwc", folder.path().join("shop.db").display());
/// let pool = SqlitePool::connect(&url).await?;
/// sqlx::query("CREATE TABLE reservations (sku TEXT)").execute(&pool).await?;
/// let running = Service::new("inventory")
///     .subscribe(
///         Subscription::per_service("reserve", ["order.created.*"])
///             .middleware(Outbox::new(pool.clone()))
///             .idempotent(Transactional::new(pool))
///             .handler(reserve),
///     )
///     .start(InProcess::new())
///     .await?;
/// # running.stop().await?;
/// # Ok(()) }
/// ```
///
/// Cheap to clone; clones share one sender. Each service of a process needs an outbox of its own, of
/// which there may be many on one table.
#[must_use = "an outbox sends nothing until a subscription has it, or it is run"]
pub struct Outbox<DB: OutboxDatabase> {
    table: Arc<Table<DB>>,
    settings: Settings,
    source: Arc<str>,
    shared: Arc<middleware::Shared>,
}

/// How messages are sent.
#[derive(Debug, Clone, Copy)]
struct Settings {
    lease: Duration,
    sweep: Duration,
    batch: u32,
    retry: RetryPolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Twice what a publication may take on RabbitMQ.
            lease: Duration::from_secs(60),
            sweep: Duration::from_secs(1),
            batch: 200,
            retry: RetryPolicy::default().max_attempts(20),
        }
    }
}

const DEFAULT_TABLE: &str = "outbox_messages";

impl<DB: OutboxDatabase> Outbox<DB> {
    /// The table `outbox_messages` in the pool's database.
    pub fn new(pool: Pool<DB>) -> Self {
        Self::on(Table::new(pool, DEFAULT_TABLE))
    }

    fn on(table: Table<DB>) -> Self {
        Self {
            table: Arc::new(table),
            settings: Settings::default(),
            source: "".into(),
            shared: Arc::default(),
        }
    }

    /// Uses another table than `outbox_messages`.
    ///
    /// # Errors
    /// When that cannot be the name of one.
    pub fn table(self, name: impl AsRef<str>) -> Result<Self, InvalidTableName> {
        let name = name.as_ref();
        check_name(name)?;
        let Self { settings, source, table, .. } = self;
        Ok(Self { settings, source, ..Self::on(Table::new(table.pool.clone(), name)) })
    }

    /// For how long a sender that died keeps its messages from others; 60 s by default. One that
    /// lives gives up waiting for the broker after three quarters of it, so it should be longer than
    /// a publication may take.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How often messages are looked for that nobody told this process of: those of others who
    /// died, and those to be tried again; every second by default.
    pub fn sweep_every(mut self, pause: Duration) -> Self {
        self.settings.sweep = pause;
        self
    }

    /// How many messages are taken in hand at once; 200 by default. After a crash, that many may be
    /// published a second time, with the same ids.
    pub fn batch(mut self, messages: u32) -> Self {
        self.settings.batch = messages.max(1);
        self
    }

    /// When a message that the broker does not take is tried again, and how often before it is given
    /// up; as subscriptions do by default, but with 20 attempts. A broker that is away does not
    /// count.
    pub fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// The service in whose name messages are written outside of a handler; by default they are
    /// published in the name of who sends them.
    pub fn source(mut self, service: impl Into<Arc<str>>) -> Self {
        self.source = service.into();
        self
    }

    /// Makes the table if it is missing. A service does so when it starts.
    ///
    /// # Errors
    /// [`OutboxError::Table`] if it is there in another shape, or cannot be made.
    pub async fn migrate(&self) -> Result<(), OutboxError> {
        if DB::Rows::check(&self.table).await.is_ok() {
            return Ok(());
        }
        // Another instance may be at it too.
        let created = DB::Rows::create(&self.table).await;
        let checked = DB::Rows::check(&self.table).await;
        let table = self.table.statements.table.to_string();
        checked
            .map_err(|source| OutboxError::Table { table, source: created.err().unwrap_or(source) })
    }

    /// Writes a message into the transaction of the message that is being handled. It is published
    /// after the handler has returned and the transaction is committed, and never if that is rolled
    /// back. Returns the message's id.
    ///
    /// As with [`Publisher::publish`], the message belongs to the conversation of the one that is
    /// handled, and its id is a function of that one's: a second run of the handler writes the same
    /// ids again.
    ///
    /// # Errors
    /// When the message cannot be published as it is, or the database fails.
    pub async fn publish(
        &self,
        tx: &mut Tx<DB>,
        message: impl Into<OutboxMessage>,
    ) -> Result<MessageId, OutboxError>
    where
        DB: TransactionalDatabase,
    {
        let OutboxMessage { message, key } = message.into();
        let (id, publication) = tx.publisher().ok_or(OutboxError::OfABatch)?.prepare(message)?;
        self.write(tx, &id, publication, key).await?;
        tx.wrote_to_outbox();
        Ok(id)
    }

    /// As [`publish`](Self::publish), in the transaction of a batch, for one of its messages: that is
    /// the one which the written message belongs to, and which its id is a function of.
    ///
    /// # Errors
    /// When the message cannot be published as it is, or the database fails.
    pub async fn publish_for<T>(
        &self,
        tx: &mut Tx<DB>,
        item: &BatchItem<T>,
        message: impl Into<OutboxMessage>,
    ) -> Result<MessageId, OutboxError>
    where
        DB: TransactionalDatabase,
    {
        let OutboxMessage { message, key } = message.into();
        let (id, publication) = item.publisher().prepare(message)?;
        self.write(tx, &id, publication, key).await?;
        tx.wrote_to_outbox();
        Ok(id)
    }

    /// Writes a message into any transaction, outside of a handler: a connection on which one is
    /// open. It is published after the commit, by whichever process looks first; if that shall be
    /// this one, at once, say [`wake`](Self::wake) after the commit. Returns the message's id.
    ///
    /// The [table](Self::migrate) must be there.
    ///
    /// ```
    /// use mmate_core::Outgoing;
    /// use mmate_idempotency::Outbox;
    /// # use sqlx::SqlitePool;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}?mode=rwc", folder.path().join("shop.db").display());
    /// # let pool = SqlitePool::connect(&url).await?;
    /// let outbox = Outbox::new(pool.clone()).source("shop");
    /// outbox.migrate().await?;
    ///
    /// let mut tx = pool.begin().await?;
    /// let event = Outgoing::event("order.created.eu", "OrderCreated", &7);
    /// outbox.publish_in(&mut tx, event).await?;
    /// tx.commit().await?;
    /// outbox.wake();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the message cannot be published as it is, or the database fails.
    pub async fn publish_in(
        &self,
        connection: &mut DB::Connection,
        message: impl Into<OutboxMessage>,
    ) -> Result<MessageId, OutboxError> {
        let OutboxMessage { message, key } = message.into();
        let (id, publication) = message.prepare(&self.source)?;
        self.write(connection, &id, publication, key).await?;
        Ok(id)
    }

    async fn write(
        &self,
        connection: &mut DB::Connection,
        id: &MessageId,
        publication: mmate_core::transport::Publication,
        key: Option<String>,
    ) -> Result<(), OutboxError> {
        if let Some(key) = &key {
            // The same texts are keys that are ids.
            MessageId::parse(key).map_err(OutboxError::Key)?;
        }
        let row = parcel::pack(id, publication, key).map_err(OutboxError::Unkeepable)?;
        let written = DB::Rows::insert(&self.table.statements, connection, &row).await;
        written.map_err(failed("write a message into the outbox"))?;
        self.meters().written.increment(1);
        Ok(())
    }

    /// Has the sender of this process look for messages now.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Sends what is in the outbox until `stop` is ready, or the publisher's connection is closed:
    /// for programs without a service. Any number of programs may do so on one table.
    ///
    /// After `stop`, what is in hand is finished, and what was committed before is sent as far as
    /// the broker takes it at once.
    ///
    /// ```no_run
    /// # use mmate_core::{InProcess, Publisher, shutdown_signal};
    /// # use mmate_idempotency::Outbox;
    /// # async fn example(pool: sqlx::SqlitePool) -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = InProcess::new();
    /// let publisher = Publisher::connect(&broker, "relay").await?;
    /// let outbox = Outbox::new(pool);
    /// outbox.migrate().await?;
    /// outbox.run(publisher, shutdown_signal()).await;
    /// # Ok(()) }
    /// ```
    pub async fn run(&self, publisher: Publisher, stop: impl Future<Output = ()>) {
        let stopping = CancellationToken::new();
        let sender = self.sender(publisher);
        let mut sending = std::pin::pin!(sender.run(stopping.clone()));
        tokio::select! {
            () = &mut sending => return,
            () = stop => stopping.cancel(),
        }
        if tokio::time::timeout(middleware::LAST_MESSAGES, sending).await.is_err() {
            middleware::warn_of_unsent();
        }
    }

    fn meters(&self) -> &Arc<Meters> {
        self.shared.meters.get_or_init(|| Arc::new(Meters::new(&self.table.statements.table)))
    }

    fn sender(&self, publisher: Publisher) -> Sender<DB> {
        Sender {
            table: Arc::clone(&self.table),
            settings: self.settings,
            publisher,
            wake: Arc::clone(&self.shared.wake),
            meters: Arc::clone(self.meters()),
            trouble: Arc::clone(&self.shared.trouble),
        }
    }
}

impl<DB: OutboxDatabase> Clone for Outbox<DB> {
    fn clone(&self) -> Self {
        Self {
            table: Arc::clone(&self.table),
            settings: self.settings,
            source: Arc::clone(&self.source),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<DB: OutboxDatabase> fmt::Debug for Outbox<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("database", &DB::NAME)
            .field("table", &self.table.statements.table)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
