//! Where connections come from.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::is_cut;

/// Where a store takes its connections from.
#[derive(Clone)]
pub(super) enum Source {
    /// Some of its own: nothing that others do keeps the store from them.
    Own(Arc<Own>),
    /// A pool of its user's.
    Pool(PgPool),
}

/// A few connections. Other than with a pool nothing is sent but what is asked.
pub(super) struct Own {
    options: PgConnectOptions,
    idle: Mutex<Vec<PgConnection>>,
    places: Arc<Semaphore>,
    size: usize,
}

/// A connection in hand. One that is not given back is closed.
pub(super) struct Hand(Option<Connection>);

enum Connection {
    Own { own: Arc<Own>, connection: Box<PgConnection>, _place: OwnedSemaphorePermit },
    Pooled(PoolConnection<Postgres>),
}

impl Source {
    /// Up to so many connections of its own, the first of which is made now.
    pub(super) async fn open(options: PgConnectOptions, at_most: usize) -> sqlx::Result<Self> {
        let first = options.connect().await?;
        let idle = Mutex::new(vec![first]);
        let places = Arc::new(Semaphore::new(at_most));
        Ok(Self::Own(Arc::new(Own { options, idle, places, size: at_most })))
    }

    /// How many connections there may be at once.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Own(own) => own.size,
            Self::Pool(pool) => {
                usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX)
            }
        }
    }

    pub(super) async fn hand(&self) -> sqlx::Result<Hand> {
        let connection = match self {
            Self::Pool(pool) => Connection::Pooled(pool.acquire().await?),
            Self::Own(own) => {
                let place = Arc::clone(&own.places).acquire_owned().await;
                let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
                let idle = own.idle().pop();
                let connection = match idle {
                    Some(connection) => connection,
                    None => own.options.connect().await?,
                };
                let own = Arc::clone(own);
                Connection::Own { own, connection: Box::new(connection), _place: place }
            }
        };
        Ok(Hand(Some(connection)))
    }
}

impl Own {
    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        // Nothing panics while it is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hand {
    /// Gives the connection back, unless what was done with it failed. If it was cut, the others
    /// that wait were cut with it, most likely.
    pub(super) fn give_back<T>(mut self, done: sqlx::Result<T>) -> sqlx::Result<T> {
        match (&done, self.0.take()) {
            (Ok(_), Some(Connection::Own { own, connection, .. })) => own.idle().push(*connection),
            (Ok(_), Some(pooled)) => drop(pooled),
            (Err(error), connection) => {
                if let (true, Some(Connection::Own { own, .. })) = (is_cut(error), &connection) {
                    own.idle().clear();
                }
                self.0 = connection;
            }
            (Ok(_), None) => {}
        }
        done
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // One of its own is closed by being dropped.
        if let Some(Connection::Pooled(pooled)) = &mut self.0 {
            pooled.close_on_drop();
        }
    }
}

const IN_HAND: &str = "a connection is in hand until it is given back";

impl Deref for Hand {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self.0.as_ref().expect(IN_HAND) {
            Connection::Own { connection, .. } => connection,
            Connection::Pooled(pooled) => pooled,
        }
    }
}

impl DerefMut for Hand {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self.0.as_mut().expect(IN_HAND) {
            Connection::Own { connection, .. } => connection,
            Connection::Pooled(pooled) => pooled,
        }
    }
}
