//! The listener's side of the WebSocket: hears the producer, and tells how far it is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use mmate_core::health::{Status, StatusCell};
use mmate_core::{RetryPolicy, error_chain};
use mmate_examples::program::Failure;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

use crate::event::Numbered;
use crate::feed::{BEAT, Progress, SILENCE};
use crate::processor::Processor;

/// How many events a listener has at most, worked on or waiting.
const WINDOW: usize = 1_000;

/// How long what is worked on may take at the end.
const END: Duration = Duration::from_secs(10);

/// How often it is told how far the listener is, if there is something to tell.
const TELL: Duration = Duration::from_millis(100);

pub(crate) struct Inbox {
    request: Request,
    processor: Arc<Processor>,
    window: Arc<Semaphore>,
    status: StatusCell,
}

impl Inbox {
    /// For the producer at that URL.
    pub(crate) fn new(
        url: &str,
        listener: &str,
        processor: Arc<Processor>,
    ) -> Result<Self, Failure> {
        let request = format!("{url}?instance={listener}").into_client_request();
        let request = request.map_err(|error| format!("cannot use the producer {url}: {error}"))?;
        if request.uri().scheme_str() != Some("ws") {
            return Err(format!("cannot use the producer {url}: its URL is ws://…").into());
        }
        let status = StatusCell::new(Status::down("not connected yet"));
        Ok(Self { request, processor, window: Arc::new(Semaphore::new(WINDOW)), status })
    }

    pub(crate) fn status(&self) -> StatusCell {
        self.status.clone()
    }

    /// Hears the producer until `stop`. After a cut it is connected to again, and goes on from where
    /// this listener was.
    pub(crate) async fn hear(&self, stop: &CancellationToken) {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(1));
        let pauses = RetryPolicy::exponential(first, longest).max_attempts(u32::MAX);
        let mut attempt = 0;
        while !stop.is_cancelled() {
            let ended = match timeout(SILENCE, connect_async(self.request.clone())).await {
                Ok(Ok((socket, _))) => {
                    attempt = 0;
                    self.says(Status::Up);
                    self.follow(socket, stop).await
                }
                Ok(Err(error)) => Err(error.into()),
                Err(elapsed) => Err(elapsed.into()),
            };
            let reason = ended.map_or_else(|failure| error_chain(&*failure), |()| "closed".into());
            self.says(Status::down(reason));
            attempt += 1;
            let pause = sleep(pauses.after(attempt).unwrap_or_default());
            stop.run_until_cancelled(pause).await;
        }
    }

    /// Takes events in until the connection ends. What is under way then goes on; the producer
    /// sends it once more, and it is found to be done.
    async fn follow(
        &self,
        mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let pending = Arc::<Pending>::default();
        let mut told = Progress { done: 0 };
        let mut told_at = Instant::now();
        let mut heard_at = Instant::now();
        let mut room = None;
        let mut tell = interval(TELL);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.processor.finish(END).await;
                    let told = Progress { done: pending.done() };
                    socket.send(Message::text(serde_json::to_string(&told)?)).await?;
                    return Ok(socket.close(None).await?);
                }
                permit = Arc::clone(&self.window).acquire_owned(), if room.is_none() => {
                    room = Some(permit?);
                    heard_at = Instant::now();
                }
                message = socket.next(), if room.is_some() => {
                    heard_at = Instant::now();
                    let Some(message) = message.transpose()? else { return Ok(()) };
                    let Message::Text(text) = message else { continue };
                    let Numbered { number, event } = serde_json::from_str(&text)?;
                    pending.begin(number);
                    let (room, processor) = (room.take(), Arc::clone(&self.processor));
                    let pending = Arc::clone(&pending);
                    tokio::spawn(async move {
                        if processor.process(event).await.is_some() {
                            pending.end(number);
                        }
                        drop(room);
                    });
                }
                _ = tell.tick() => {
                    if room.is_some() && heard_at.elapsed() > SILENCE {
                        return Err("the producer is silent".into());
                    }
                    let done = pending.done();
                    if done > told.done || told_at.elapsed() > BEAT {
                        told = Progress { done };
                        told_at = Instant::now();
                        socket.send(Message::text(serde_json::to_string(&told)?)).await?;
                    }
                }
            }
        }
    }

    /// Logs only what is new.
    fn says(&self, status: Status) {
        if self.status.status().is_down() != status.is_down() {
            tracing::info!("the producer is {status}");
        }
        self.status.set(status);
    }
}

/// Which events of a connection are not done.
#[derive(Debug, Default)]
struct Pending(Mutex<(BTreeSet<i64>, i64)>);

impl Pending {
    fn begin(&self, number: i64) {
        let (pending, latest) = &mut *self.lock();
        pending.insert(number);
        *latest = number;
    }

    fn end(&self, number: i64) {
        self.lock().0.remove(&number);
    }

    /// Up to which number all are done.
    fn done(&self) -> i64 {
        let (pending, latest) = &*self.lock();
        pending.first().map_or(*latest, |first| first - 1)
    }

    fn lock(&self) -> MutexGuard<'_, (BTreeSet<i64>, i64)> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Pending;

    #[test]
    fn what_is_done_ends_before_the_first_that_is_not() {
        let pending = Pending::default();
        assert_eq!(pending.done(), 0);
        (5..=8).for_each(|number| pending.begin(number));
        pending.end(6);
        assert_eq!(pending.done(), 4);
        pending.end(5);
        assert_eq!(pending.done(), 6);
        pending.end(8);
        pending.end(7);
        assert_eq!(pending.done(), 8);
    }
}
