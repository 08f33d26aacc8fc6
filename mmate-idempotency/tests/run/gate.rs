//! Where work stands until a test lets it go on.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Work that stands at a gate until it is let through.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    entered: Arc<Semaphore>,
    go_on: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { entered: Arc::new(Semaphore::new(0)), go_on: Arc::new(Semaphore::new(0)) }
    }

    /// For the work: stands here.
    pub(crate) async fn pass(&self) {
        self.entered.add_permits(1);
        self.go_on.acquire().await.unwrap().forget();
    }

    /// For the test: waits until some work stands at the gate.
    pub(crate) async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }

    /// For the test: lets one through.
    pub(crate) fn open(&self) {
        self.go_on.add_permits(1);
    }
}
