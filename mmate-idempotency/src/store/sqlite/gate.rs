//! One writer at a time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::{Mutex as FairMutex, OwnedMutexGuard};

/// Lets the writers of this process into a database file one by one, in the order they came.
///
/// SQLite has one writer. Without a gate the others would ask again and again, with growing pauses
/// and no order, until a timeout.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<FairMutex<()>>);

/// Shut for others as long as it lives.
pub(crate) type Inside = OwnedMutexGuard<()>;

impl Gate {
    /// The gate of a database, the same for all who use that file.
    pub(crate) fn of(options: &SqliteConnectOptions) -> Self {
        static GATES: OnceLock<Mutex<HashMap<PathBuf, Weak<FairMutex<()>>>>> = OnceLock::new();
        let path = options.get_filename();
        // A database in memory has no path, and is left with its name.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let gates = GATES.get_or_init(Mutex::default);
        let mut gates = gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| gate.strong_count() > 0);
        let known = gates.get(&path).and_then(Weak::upgrade);
        Self(known.unwrap_or_else(|| {
            let gate = Arc::new(FairMutex::new(()));
            gates.insert(path, Arc::downgrade(&gate));
            gate
        }))
    }

    pub(crate) async fn enter(&self) -> Inside {
        Arc::clone(&self.0).lock_owned().await
    }
}
