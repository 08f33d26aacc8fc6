//! A channel in confirm mode.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::confirms::{Confirmed, Confirms, Decided};
use super::flights::Flights;
use super::parcel::Parcel;
use crate::failure::Failure;
use crate::link::{Channel, Session};

/// What became of a parcel.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The broker has it.
    Stored,
    /// The broker found no queue for it.
    Unroutable,
    /// The broker does not want it.
    Refused(String),
    /// The broker closed the channel, over it or over a neighbour.
    Suspected(String),
    /// Nobody knows.
    Cut(String),
}

/// A channel in confirm mode that many publish on. Cheap to clone.
///
/// One task drives it: `Channel::basic_publish` of lapin 4.12 takes its delivery tag and queues its
/// frames in two steps, so two threads in it at once can swap their confirms. And only one who sees
/// all confirms can tell [whose the returned messages are](super::confirms).
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
        Ok(Confirmation::Ack(Some(_))) => Outcome::Unroutable,
        Ok(confirmation) => outcome_of(&confirmation),
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

/// What a confirmation says if nothing was returned.
fn outcome_of(confirmation: &Confirmation) -> Outcome {
    match confirmation {
        Confirmation::Ack(_) => Outcome::Stored,
        Confirmation::Nack(_) => Outcome::Refused(
            "the broker could not store it (a queue that is full, or failed)".to_owned(),
        ),
        Confirmation::NotRequested => Outcome::Cut("the channel confirms nothing".to_owned()),
    }
}

fn outcome_of_failure(failure: &Failure) -> Outcome {
    match failure.is_of_the_channel() {
        true => Outcome::Suspected(failure.to_string()),
        false => Outcome::Cut(failure.to_string()),
    }
}

/// How many parcels are taken up before the confirms are looked at.
const AT_ONCE: usize = 64;

/// How long a broken channel's flights are waited for, before their owners are told of a cut.
const REST: Duration = Duration::from_secs(1);

/// A flight that ended.
struct Landed {
    number: u64,
    outcome: oneshot::Sender<Outcome>,
    result: lapin::Result<Confirmation>,
}

/// How old a channel is that is given up after a refusal.
///
/// A channel of RabbitMQ 3.10 that first publishes to a quorum queue while its leader is down keeps
/// asking that node, and refuses everything until it is back, whoever leads by then. A new channel
/// asks the new leader. Where it is the queue that refuses, as when it is full, the new channel does
/// no harm.
const RENEWED_AFTER: Duration = Duration::from_millis(500);

/// Drives the channel until it fails or is given up, or until nobody can send on it any more.
async fn run(
    channel: Channel,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    session_ended: CancellationToken,
) {
    let opened = Instant::now();
    let mut flights = Flights::new();
    let mut desk = Desk::new();
    let mut taken = Vec::with_capacity(AT_ONCE);
    let mut no_more = false;
    loop {
        let landed = tokio::select! {
            biased;
            // lapin may never say how a flight ended; dropping it tells its owner of a cut.
            () = session_ended.cancelled() => return,
            landed = flights.landed(), if !flights.is_empty() => landed,
            count = jobs.recv_many(&mut taken, AT_ONCE), if !no_more => {
                no_more = count == 0;
                for job in taken.drain(..) {
                    let number = desk.confirms.add(Arc::clone(&job.parcel));
                    flights.push(fly(&channel, job, number));
                }
                continue;
            }
            else => return,
        };
        if desk.take(landed, &mut jobs) {
            let rest = async {
                while !flights.is_empty() {
                    desk.take(flights.landed().await, &mut jobs);
                }
            };
            let _ = tokio::time::timeout(REST, rest).await;
            return;
        }
        if desk.was_refused && opened.elapsed() > RENEWED_AFTER {
            // What it has taken it brings to an end. Who comes now opens another.
            jobs.close();
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

/// Where people learn what became of their parcels.
struct Desk {
    confirms: Confirms<Arc<Parcel>>,
    /// Confirmed, and to be told as soon as it is known what was returned.
    waiting: HashMap<u64, (oneshot::Sender<Outcome>, Outcome)>,
    /// Whether the broker did not take one.
    was_refused: bool,
}

impl Desk {
    fn new() -> Self {
        Self { confirms: Confirms::new(), waiting: HashMap::new(), was_refused: false }
    }

    /// Takes flights in that ended, tells whom it can, and returns whether the channel is broken.
    fn take(&mut self, landed: Vec<Landed>, jobs: &mut mpsc::UnboundedReceiver<Job>) -> bool {
        let mut confirmed = Vec::new();
        let mut broken = Vec::new();
        for Landed { number, outcome, result } in landed {
            match result {
                Ok(confirmation) => {
                    let fate = outcome_of(&confirmation);
                    self.was_refused |= matches!(fate, Outcome::Refused(_));
                    self.waiting.insert(number, (outcome, fate));
                    confirmed.push(Confirmed { number, message: confirmation.take_message() });
                }
                Err(error) => broken.push((outcome, error)),
            }
        }
        for Decided { number, returned } in
            self.confirms.take(confirmed, |parcel, message| parcel.is(message))
        {
            // Each that is decided was confirmed.
            if let Some((outcome, fate)) = self.waiting.remove(&number) {
                // Its owner may not be there any more.
                let _ = outcome.send(if returned { Outcome::Unroutable } else { fate });
            }
        }
        if broken.is_empty() {
            return false;
        }
        // Before anybody is told: who is told tries again, and not on this lane.
        jobs.close();
        for (outcome, error) in broken {
            let _ = outcome.send(outcome_of_failure(&Failure::Broker(error)));
        }
        true
    }
}
