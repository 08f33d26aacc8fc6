//! Starting, running and stopping.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, IntoFuture, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::parts::consume_all;
use super::worker::Worker;
use super::{Service, ServiceError, check, middleware_failed, ordering};
use crate::context::Shared;
use crate::dead_letters::DeadLetters;
use crate::health::{Health, Status, StatusCell, Subscribed};
use crate::middleware::Middleware;
use crate::publisher::Publisher;
use crate::stats::{Ledger, Stats};
use crate::subscription::Subscription;
use crate::transport::{Connection, Transport};

/// A service about to run, see [`Service::run`]. It runs when it is awaited.
#[must_use = "a service runs when this is awaited"]
pub struct Run<T> {
    service: Service,
    transport: T,
    signal: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<T: Transport> Run<T> {
    pub(super) fn new(service: Service, transport: T) -> Self {
        Self { service, transport, signal: Box::pin(pending()) }
    }

    /// Stops when the future is ready: no more messages are fetched, what runs is finished and
    /// settled, the rest goes back to the queues.
    pub fn with_graceful_shutdown<F>(mut self, signal: F) -> Self
    where
        F: Future + Send + 'static,
    {
        self.signal = Box::pin(async move {
            signal.await;
        });
        self
    }
}

impl<T: Transport> IntoFuture for Run<T> {
    type Output = Result<(), ServiceError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { service, transport, mut signal } = self;
        Box::pin(async move {
            let mut running = tokio::select! {
                started = start(service, transport) => started?,
                () = &mut signal => return Ok(()),
            };
            tokio::select! {
                () = &mut signal => {}
                () = running.failed() => {}
            }
            running.stop().await
        })
    }
}

impl<T> fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("service", &self.service).finish_non_exhaustive()
    }
}

/// A service that runs. Dropping it stops it the hard way: what runs is dropped, and its messages
/// go back to their queues.
#[must_use = "a service that is dropped stops"]
pub struct Running {
    connection: Arc<dyn Connection>,
    publisher: Publisher,
    stats: Stats,
    health: Health,
    middleware: Vec<Arc<dyn Middleware>>,
    /// The queue of each subscription.
    queues: HashMap<Arc<str>, Arc<str>>,
    workers: JoinSet<Result<(), ServiceError>>,
    stop: CancellationToken,
    abort: CancellationToken,
    drain_timeout: Duration,
    failure: Option<ServiceError>,
    closed: bool,
}

/// What a broker may take, after the drain, to take back what was dropped.
const HAND_BACK_TIMEOUT: Duration = Duration::from_secs(5);

impl Running {
    /// A publisher in the service's name.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The live counts.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How the service is, live.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The dead letters of one of the service's subscriptions, by the subscription's name (of a
    /// shared one that is the queue). `None` if the service has no such subscription.
    ///
    /// They use the service's connection, and end with it.
    #[must_use]
    pub fn dead_letters(&self, subscription: &str) -> Option<DeadLetters> {
        let queue = self.queues.get(subscription)?;
        Some(DeadLetters::new(Arc::clone(&self.connection), Arc::clone(queue)))
    }

    /// Waits until the service fails; [`stop`](Self::stop) then tells why. One that does not fail
    /// waits for ever.
    pub async fn failed(&mut self) {
        while self.failure.is_none() {
            match self.workers.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => self.failure = Some(error),
                Some(Err(died)) if died.is_panic() => std::panic::resume_unwind(died.into_panic()),
                Some(Err(_)) | None => pending().await,
            }
        }
    }

    /// Stops: no more messages are fetched, what runs is finished and settled within the drain
    /// timeout, the rest goes back to the queues, the connection is closed.
    ///
    /// # Errors
    /// Why the service failed before it was stopped, if it did.
    pub async fn stop(mut self) -> Result<(), ServiceError> {
        self.stop.cancel();
        let drained = tokio::time::timeout(self.drain_timeout, self.join_all()).await;
        if drained.is_err() {
            tracing::warn!(
                limit = ?self.drain_timeout,
                "handlers still ran at the end of the drain; they are dropped, and their messages \
                 go back to the queues"
            );
            self.abort.cancel();
            if tokio::time::timeout(HAND_BACK_TIMEOUT, self.join_all()).await.is_err() {
                // The broker does not answer; it has the messages, and will learn that we are gone.
                self.workers.shutdown().await;
            }
        }
        for middleware in &self.middleware {
            middleware.stop().await;
        }
        self.connection.close().await;
        self.closed = true;
        self.failure.take().map_or(Ok(()), Err)
    }

    async fn join_all(&mut self) {
        while let Some(ended) = self.workers.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.failure.get_or_insert(error);
                }
                Err(died) if died.is_panic() => std::panic::resume_unwind(died.into_panic()),
                Err(_) => {}
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abort.cancel();
        // Clones of the publisher may keep the connection, and with it the messages.
        if !self.closed
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let connection = Arc::clone(&self.connection);
            runtime.spawn(async move { connection.close().await });
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("stats", &self.stats).finish_non_exhaustive()
    }
}

pub(super) async fn start<T: Transport>(
    mut service: Service,
    transport: T,
) -> Result<Running, ServiceError> {
    let limits = transport.limits();
    let problems = check::problems(&mut service, limits);
    if !problems.is_empty() {
        return Err(ServiceError::Config(problems));
    }
    check::warn(&service, limits);
    for overlap in service.overlaps() {
        tracing::info!(service = %service.name, "{overlap}");
    }
    for Subscription { parts, .. } in &service.subscriptions {
        if let Some(remark) = ordering::remark(parts) {
            tracing::info!(service = %service.name, subscription = parts.name, "{remark}");
        }
    }

    let connection: Arc<dyn Connection> = Arc::from(transport.connect(&service.name).await?);
    let mut running = Running {
        publisher: Publisher::new(
            Arc::clone(&connection),
            Arc::clone(&service.name),
            &service.instance,
        ),
        stats: Stats::new(Vec::new()),
        health: Health::new(Arc::clone(&service.name), Arc::clone(&connection), Vec::new()),
        connection,
        middleware: Vec::new(),
        queues: HashMap::new(),
        workers: JoinSet::new(),
        stop: CancellationToken::new(),
        abort: CancellationToken::new(),
        drain_timeout: service.drain_timeout,
        failure: None,
        closed: false,
    };
    match subscribe_all(service, &mut running).await {
        Ok(()) => Ok(running),
        Err(error) => {
            // Why it did not start is what the caller wants to know.
            let _ = running.stop().await;
            Err(error)
        }
    }
}

/// Starts what a connected service consists of.
async fn subscribe_all(mut service: Service, running: &mut Running) -> Result<(), ServiceError> {
    // Stores before queues, and all queues before the first consumer: what a handler publishes to
    // a neighbour finds its queue.
    for subscription in &service.subscriptions {
        for middleware in subscription.parts.all_middleware() {
            let started = middleware.start().await;
            started.map_err(|e| middleware_failed(&subscription.parts.name, e))?;
            running.middleware.push(middleware);
        }
    }
    let plans: Vec<_> = service.subscriptions.iter().map(|s| service.plans_of(s)).collect();
    for plan in plans.iter().flatten() {
        running.connection.declare(plan).await?;
    }
    for subscription in &service.subscriptions {
        for middleware in subscription.parts.all_middleware() {
            let ready = middleware.ready(&running.publisher).await;
            ready.map_err(|e| middleware_failed(&subscription.parts.name, e))?;
        }
    }

    let own_queues: Arc<[String]> = plans.iter().flatten().map(|plan| plan.name.clone()).collect();
    let state = Arc::new(std::mem::take(&mut service.state));
    let name = Arc::clone(&service.name);
    let propagated: Arc<[String]> = std::mem::take(&mut service.propagated).into();
    let (mut ledgers, mut healths) = (Vec::new(), Vec::new());
    for (subscription, plans) in std::mem::take(&mut service.subscriptions).into_iter().zip(plans) {
        let name: Arc<str> = subscription.parts.name.as_str().into();
        let queue =
            subscription.parts.queue_plan(&service.name, &service.instance, service.declare);
        running.queues.insert(Arc::clone(&name), queue.name.as_str().into());
        let ledger = Arc::new(Ledger::new(&service.name, &name));
        ledgers.push((Arc::clone(&name), Arc::clone(&ledger)));
        let shared = Arc::new(Shared {
            service: Arc::clone(&service.name),
            subscription: name,
            instance: Arc::clone(&service.instance),
            scope: service.scope_of(&subscription),
            state: Arc::clone(&state),
            publisher: running.publisher.clone(),
            propagated: Arc::clone(&propagated),
            replies: subscription.parts.replies.policy(&own_queues),
            max_hops: service.max_hops,
            stopping: running.stop.clone(),
            batches: subscription.handler.batching().map(|batching| batching.terms()),
        });
        let prefetch = subscription.parts.prefetch.get();
        let (consumer, consumers) = consume_all(&*running.connection, plans, prefetch).await?;
        let end = StatusCell::default();
        healths.push(Subscribed {
            name: Arc::clone(&shared.subscription),
            end: end.clone(),
            consumers,
            middleware: subscription.parts.all_middleware(),
        });
        let worker = Worker::new(subscription, shared, ledger);
        let (stop, abort) = (running.stop.clone(), running.abort.clone());
        running.workers.spawn(async move {
            let ended = worker.run(consumer, stop, abort).await;
            end.set(Status::down(match &ended {
                Ok(()) => "the service was stopped".to_owned(),
                Err(error) => error.to_string(),
            }));
            ended.map_err(Into::into)
        });
    }
    running.stats = Stats::new(ledgers);
    running.health = Health::new(name, Arc::clone(&running.connection), healths);
    Ok(())
}

/// Ready at Ctrl-C, and at the SIGTERM with which an orchestrator asks a process to end.
///
/// A second Ctrl-C while a service drains has no effect of its own; the drain has a time limit.
pub async fn shutdown_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Registering fails only where the process may not have handlers at all; Ctrl-C below is
        // then what is left.
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
