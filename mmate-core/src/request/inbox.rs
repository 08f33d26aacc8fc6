//! The queue that a process's replies come to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter};
use tokio_util::task::AbortOnDropHandle;

use super::RequestError;
use super::table::{Ended, Table, Waiting};
use crate::message::{Envelope, Message, wire};
use crate::transport::{
    Connection, Consumer, QueuePlan, Settlement, TransportError, TransportErrorKind,
};

/// How long the reply queue stays without its consumer: longer than a restart of the broker or a
/// partition that somebody mends.
const EXPIRES: Duration = Duration::from_secs(600);
const PREFETCH: u16 = 200;
const UNCLAIMED: &str = "mmate_replies_unclaimed_total";

/// What a publisher needs to ask: a queue for the replies, made at the first request, and the
/// requests that wait.
pub(crate) struct Requests {
    plan: QueuePlan,
    service: Arc<str>,
    table: Arc<Table>,
    /// The task that takes the replies.
    reader: tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Requests {
    pub(crate) fn new(service: &Arc<str>, instance: &str) -> Self {
        Self {
            plan: QueuePlan::for_replies(wire::reply_queue(service, instance), EXPIRES),
            service: Arc::clone(service),
            table: Arc::default(),
            reader: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn queue(&self) -> &str {
        &self.plan.name
    }

    pub(crate) fn waiting(&self) -> usize {
        self.table.len()
    }

    /// Makes and consumes the reply queue, unless that is done.
    pub(super) async fn open(&self, connection: &dyn Connection) -> Result<(), RequestError> {
        let mut reader = self.reader.lock().await;
        if reader.as_ref().is_some_and(|reader| !reader.is_finished()) {
            return Ok(());
        }
        let opened = async {
            connection.declare(&self.plan).await?;
            connection.consume(&self.plan, PREFETCH).await
        };
        let consumer = opened.await.map_err(|error| match error.kind() {
            TransportErrorKind::Closed => RequestError::Closed,
            _ => RequestError::Transport(Arc::new(error)),
        })?;
        let reading = read(consumer, Arc::clone(&self.table), Arc::clone(&self.service));
        *reader = Some(AbortOnDropHandle::new(tokio::spawn(reading)));
        Ok(())
    }

    /// Waits for the reply to the request with that id. The reply queue must be open.
    pub(super) fn wait(&self, id: &str) -> Waiting {
        self.table.wait(id)
    }
}

/// Takes replies until the consumer ends, and then ends all waiting.
async fn read(mut consumer: Box<dyn Consumer>, table: Arc<Table>, service: Arc<str>) {
    describe_counter!(UNCLAIMED, "Replies that came when nobody waited for them any more.");
    let unclaimed = counter!(UNCLAIMED, "service" => service);
    let why = loop {
        let mut delivery = match consumer.next().await {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => break failed(error),
            None => break Ended::Closed,
        };
        let message = std::mem::take(&mut delivery.message);
        if !claim(&table, &message) {
            unclaimed.increment(1);
            tracing::debug!(
                correlation_id = message.properties.correlation_id,
                "a reply came that nobody waits for"
            );
        }
        // One that is shown again is not waited for any more.
        let _ = delivery.settle(Settlement::Ack).await;
    };
    table.end(&why);
}

fn failed(error: TransportError) -> Ended {
    match error.kind() {
        TransportErrorKind::Closed => Ended::Closed,
        _ => Ended::Failed(Arc::new(error)),
    }
}

/// Hands a reply to who waits for it, by whatever it says it is a reply to.
fn claim(table: &Table, reply: &Message) -> bool {
    let headers = [wire::CORRELATION_ID, wire::CORRELATION_ID_PLAIN];
    let outside = reply.properties.correlation_id.as_deref().into_iter();
    let outside = outside.chain(headers.into_iter().filter_map(|name| reply.headers.text(name)));
    if outside.into_iter().any(|id| table.deliver(id, reply)) {
        return true;
    }
    let Ok(envelope) = Envelope::from_json(reply.body.clone()) else { return false };
    let inside = [
        envelope.correlation_id.as_ref().map(|id| id.as_str()),
        envelope.causation_id.as_ref().map(|id| id.as_str()),
    ];
    inside.into_iter().flatten().any(|id| table.deliver(id, reply))
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("queue", &self.plan.name)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}
