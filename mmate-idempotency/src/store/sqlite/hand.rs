//! Where connections come from.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::failure::is_busy;
use super::gate::{Gate, Inside};
use crate::store::{StoreError, StoreErrorKind};

/// Where a store takes its connection from.
#[derive(Clone)]
pub(super) enum Source {
    /// One of its own: there is one writer anyway. Nothing that others do, be it to block all
    /// threads, keeps the store from it.
    Own { options: Box<SqliteConnectOptions>, connection: Arc<Mutex<Option<SqliteConnection>>> },
    /// A pool of its user's.
    Pool(SqlitePool),
}

/// A connection in hand, with the right to write.
pub(super) struct Hand {
    connection: Connection,
    #[expect(dead_code, reason = "it is held until the connection was given back")]
    inside: Inside,
}

enum Connection {
    Own(OwnedMutexGuard<Option<SqliteConnection>>),
    Pooled(PoolConnection<Sqlite>),
}

impl Source {
    /// A connection of its own, made now.
    pub(super) async fn open(
        options: SqliteConnectOptions,
        patience: Duration,
    ) -> sqlx::Result<Self> {
        let began = tokio::time::Instant::now();
        let connection = loop {
            match options.connect().await {
                Ok(connection) => break connection,
                // SQLite does not wait when two switch to the write-ahead log at once.
                Err(error) if is_busy(&error) && began.elapsed() < patience => {
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(5..50))).await;
                }
                Err(error) => return Err(error),
            }
        };
        let connection = Arc::new(Mutex::new(Some(connection)));
        Ok(Self::Own { options: Box::new(options), connection })
    }

    pub(super) fn gate(&self) -> Gate {
        match self {
            Self::Own { options, .. } => Gate::of(options),
            Self::Pool(pool) => Gate::of(&pool.connect_options()),
        }
    }

    /// Waits until this process may write, and takes a connection then: nobody waits at the gate
    /// with a connection in hand, which those inside might need.
    pub(super) async fn hand(&self, gate: &Gate) -> sqlx::Result<Hand> {
        let inside = gate.enter().await;
        let connection = match self {
            Self::Pool(pool) => Connection::Pooled(pool.acquire().await?),
            Self::Own { options, connection } => {
                let mut own = Arc::clone(connection).lock_owned().await;
                if own.is_none() {
                    *own = Some(options.connect().await?);
                }
                Connection::Own(own)
            }
        };
        Ok(Hand { connection, inside })
    }
}

impl Hand {
    /// Gives the connection back, unless what was done with it shows that it may be broken.
    pub(super) async fn give_back<T>(
        mut self,
        done: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let doubt = done.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Unknown);
        if let (true, Connection::Own(own)) = (doubt, &mut self.connection) {
            **own = None;
        }
        drop(self);
        // Who is let in now was woken on this thread, and waits behind what comes next here: be it
        // a handler that blocks. It goes first.
        tokio::task::yield_now().await;
        done
    }
}

impl Deref for Hand {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        match &self.connection {
            Connection::Own(own) => own.as_ref().expect("a hand is made with a connection"),
            Connection::Pooled(pooled) => pooled,
        }
    }
}

impl DerefMut for Hand {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        match &mut self.connection {
            Connection::Own(own) => own.as_mut().expect("a hand is made with a connection"),
            Connection::Pooled(pooled) => pooled,
        }
    }
}
