//! A channel in confirm mode.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::parcel::Parcel;
use crate::failure::Failure;
use crate::link::Session;

/// What became of a parcel.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The broker has it.
    Stored,
    /// The broker found no queue for it.
    Unroutable,
    /// The broker does not want it, or closed the channel over it or over a neighbour.
    Refused(String),
    /// Nobody knows.
    Cut(String),
}

/// A channel in confirm mode that many publish on. Cheap to clone.
///
/// One task drives it, for two reasons that lie in lapin 4.12. `Channel::basic_publish` takes its
/// delivery tag and queues its frames in two steps, so two threads in it at once can swap their
/// confirms. And a returned message is handed to whichever publish is confirmed next, not to its
/// own; but always to one that is confirmed no later than its own, so a single reader that looks at
/// confirms in their order can find out whose it is.
#[derive(Clone)]
pub(super) struct Lane {
    generation: u64,
    jobs: mpsc::UnboundedSender<Job>,
}

struct Job {
    parcel: Arc<Parcel>,
    outcome: oneshot::Sender<Outcome>,
    permit: OwnedSemaphorePermit,
}

impl Lane {
    pub(super) async fn open(session: &Session) -> Result<Self, Failure> {
        let channel = confirming_channel(session).await?;
        // Bounded by the window: each job holds one of its places.
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(run(channel, queue, session.end_token()));
        Ok(Self { generation: session.generation(), jobs })
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_broken(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Sends a parcel, and returns what became of it.
    pub(super) async fn send(&self, parcel: Arc<Parcel>, permit: OwnedSemaphorePermit) -> Outcome {
        let (outcome, told) = oneshot::channel();
        let broken = || Outcome::Cut("the channel was closed".to_owned());
        if self.jobs.send(Job { parcel, outcome, permit }).is_err() {
            return broken();
        }
        told.await.unwrap_or_else(|_| broken())
    }
}

/// Sends a parcel on a channel of its own.
pub(super) async fn send_alone(session: &Session, parcel: &Parcel) -> Outcome {
    let sent = async {
        let channel = confirming_channel(session).await?;
        let confirmation = tokio::select! {
            // No time limit: a publish has one of its own, and a blocked connection is slow.
            confirmation = publish(&channel, parcel) => confirmation?,
            () = session.lost() => return Err(Failure::Lost),
        };
        session.close_channel(&channel).await;
        Ok(confirmation)
    };
    match sent.await {
        Ok(confirmation) => outcome_of(&confirmation, parcel),
        Err(failure) => outcome_of_failure(&failure),
    }
}

async fn confirming_channel(session: &Session) -> Result<Channel, Failure> {
    let channel = session.channel().await?;
    session.ask(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

async fn publish(channel: &Channel, parcel: &Parcel) -> lapin::Result<Confirmation> {
    write(channel, parcel).await?.await
}

/// Writes a message; what is returned is ready when the broker has confirmed it.
fn write<'a>(
    channel: &'a Channel,
    parcel: &'a Parcel,
) -> impl Future<Output = lapin::Result<lapin::PublisherConfirm>> + 'a {
    let (exchange, routing_key, body, properties) = parcel.parts();
    let options = BasicPublishOptions { mandatory: parcel.mandatory(), immediate: false };
    channel.basic_publish(exchange, routing_key, options, body, properties)
}

fn outcome_of(confirmation: &Confirmation, parcel: &Parcel) -> Outcome {
    match confirmation {
        Confirmation::Ack(None) => Outcome::Stored,
        Confirmation::Ack(Some(_)) if parcel.mandatory() => Outcome::Unroutable,
        Confirmation::Ack(Some(_)) => Outcome::Stored,
        Confirmation::Nack(_) => Outcome::Refused(
            "the broker could not store it (a queue that is full, or failed)".to_owned(),
        ),
        Confirmation::NotRequested => Outcome::Cut("the channel confirms nothing".to_owned()),
    }
}

fn outcome_of_failure(failure: &Failure) -> Outcome {
    match failure.is_of_the_channel() {
        true => Outcome::Refused(failure.to_string()),
        false => Outcome::Cut(failure.to_string()),
    }
}

/// How long a broken channel's flights are waited for, before their owners are told of a cut.
const REST: Duration = Duration::from_secs(1);

/// A parcel that landed: its number, and how lapin says that it ended.
struct Landed {
    number: u64,
    outcome: oneshot::Sender<Outcome>,
    result: lapin::Result<Confirmation>,
}

/// Drives the channel until it fails, or until nobody can send on it any more.
async fn run(
    channel: Channel,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    session_ended: CancellationToken,
) {
    let mut flights = FuturesUnordered::new();
    let mut in_flight = InFlight::default();
    loop {
        let landed = tokio::select! {
            biased;
            // lapin may never say how a flight ended; dropping it tells its owner of a cut.
            () = session_ended.cancelled() => return,
            Some(landed) = flights.next(), if !flights.is_empty() => landed,
            job = jobs.recv() => match job {
                Some(job) => {
                    let number = in_flight.add(&job.parcel);
                    flights.push(fly(&channel, job, number));
                    continue;
                }
                None => return,
            },
        };
        if let Err(broke) = in_flight.land(landed) {
            // Before anybody is told: who is told asks whether the lane is broken.
            jobs.close();
            broke.tell();
            let rest = async {
                while let Some(landed) = flights.next().await {
                    if let Err(broke) = in_flight.land(landed) {
                        broke.tell();
                    }
                }
            };
            let _ = tokio::time::timeout(REST, rest).await;
            return;
        }
    }
}

async fn fly(channel: &Channel, job: Job, number: u64) -> Landed {
    let Job { parcel, mut outcome, permit } = job;
    let result = async {
        let mut confirm = pin!(write(channel, &parcel).await?);
        tokio::select! {
            biased;
            confirmation = &mut confirm => return confirmation,
            () = outcome.closed() => {}
        }
        // Nobody waits any more. It is written, so it takes no place among the unwritten ones; its
        // confirm is waited for all the same, since it may bring somebody else's returned message.
        drop(permit);
        confirm.await
    };
    let result = result.await;
    Landed { number, outcome, result }
}

/// The parcels whose confirms are due.
#[derive(Default)]
struct InFlight {
    last: u64,
    parcels: HashMap<u64, Entry>,
}

struct Entry {
    parcel: Arc<Parcel>,
    returned: bool,
}

/// The channel failed under a parcel.
struct Broke {
    error: lapin::Error,
    outcome: oneshot::Sender<Outcome>,
}

impl Broke {
    fn tell(self) {
        let _ = self.outcome.send(outcome_of_failure(&Failure::Broker(self.error)));
    }
}

impl InFlight {
    fn add(&mut self, parcel: &Arc<Parcel>) -> u64 {
        self.last += 1;
        self.parcels.insert(self.last, Entry { parcel: Arc::clone(parcel), returned: false });
        self.last
    }

    /// Tells what became of a parcel. Its owner may not be there any more.
    fn land(&mut self, landed: Landed) -> Result<(), Broke> {
        let Landed { number, outcome, result } = landed;
        let mut confirmation = match result {
            Ok(confirmation) => confirmation,
            Err(error) => return Err(Broke { error, outcome }),
        };
        // Every landed parcel was added.
        let Some(Entry { parcel, mut returned }) = self.parcels.remove(&number) else {
            return Ok(());
        };
        if let Confirmation::Ack(message) | Confirmation::Nack(message) = &mut confirmation
            && let Some(message) = message.take()
        {
            if parcel.mandatory() && parcel.is(&message) {
                returned = true;
            } else {
                self.hand_to_owner(&message);
            }
        }
        let told = match (outcome_of(&confirmation, &parcel), returned) {
            (Outcome::Stored, true) => Outcome::Unroutable,
            (told, _) => told,
        };
        let _ = outcome.send(told);
        Ok(())
    }

    fn hand_to_owner(&mut self, message: &lapin::message::BasicReturnMessage) {
        let mut waiting = self.parcels.values_mut().filter(|entry| !entry.returned);
        match waiting.find(|entry| entry.parcel.mandatory() && entry.parcel.is(message)) {
            Some(owner) => owner.returned = true,
            None => tracing::error!(
                exchange = message.exchange.as_str(),
                routing_key = message.routing_key.as_str(),
                "the broker returned a message that nobody waits for"
            ),
        }
    }
}
