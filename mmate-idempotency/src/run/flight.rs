//! The calls of one process for one key: one of them works, the others wait for it.

#[cfg(all(test, shuttle))]
mod explored;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use super::error::Refusal;
use crate::protocol::Digest;
use crate::store::{RecordKey, StoreError, StoreErrorKind};
use crate::sync::{Mutex, MutexGuard};

/// All flights of an `Idempotent`, by key and fingerprint: which of two fingerprints is the one in
/// conflict only the store can tell.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<FlightKey, (Arc<Flight>, usize)>>);

type FlightKey = (RecordKey, Option<Digest>);

struct Flight {
    /// One at a time has the turn, in the order in which they came. Closed once there is an end.
    turn: Arc<Semaphore>,
    end: OnceLock<End>,
}

/// How a flight ended, for all that take part.
#[derive(Debug)]
pub(super) enum End {
    Known(Known),
    Conflict,
    Store { kind: StoreErrorKind, cause: String },
}

/// Work that is done, with what was kept of it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) kept: Option<Bytes>,
    /// Absent if that was just now.
    pub(super) since: Option<SystemTime>,
}

/// A place among those who wait.
pub(super) struct Seat {
    flights: Arc<Flights>,
    key: FlightKey,
    flight: Arc<Flight>,
}

/// What came of waiting.
pub(super) enum Waited {
    /// It is this one's turn to claim and work.
    Mine(Turn),
    /// Somebody else's turn brought the end.
    Ended(Result<Known, Refusal>),
    /// It took too long.
    TooLong,
}

/// The turn: dropped without an end, the next one has it.
pub(super) struct Turn {
    seat: Seat,
    #[expect(dead_code, reason = "it is held until the turn is over")]
    permit: OwnedSemaphorePermit,
}

impl Flights {
    pub(super) fn join(self: &Arc<Self>, key: RecordKey, fingerprint: Option<Digest>) -> Seat {
        let key = (key, fingerprint);
        let mut flights = self.flights();
        let new = || {
            let turn = Arc::new(Semaphore::new(1));
            (Arc::new(Flight { turn, end: OnceLock::new() }), 0)
        };
        let (flight, seats) = flights.entry(key.clone()).or_insert_with(new);
        *seats += 1;
        let flight = Arc::clone(flight);
        drop(flights);
        Seat { flights: Arc::clone(self), key, flight }
    }

    /// Whether nobody waits for anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.flights().is_empty()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<FlightKey, (Arc<Flight>, usize)>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Waits for the turn or for the end.
    pub(super) async fn wait(self, until: Instant) -> Waited {
        let turn = Arc::clone(&self.flight.turn);
        let permit = match Arc::clone(&turn).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(TryAcquireError::Closed) => None,
            Err(TryAcquireError::NoPermits) => {
                match timeout_at(until, turn.acquire_owned()).await {
                    Ok(Ok(permit)) => Some(permit),
                    Ok(Err(_)) => None,
                    Err(_) => return Waited::TooLong,
                }
            }
        };
        match (permit, self.flight.end.get()) {
            (Some(permit), _) => Waited::Mine(Turn { seat: self, permit }),
            (None, Some(end)) => Waited::Ended(end.shared()),
            (None, None) => unreachable!("a flight is closed after its end is set"),
        }
    }
}

impl Turn {
    /// Tells all that wait. Who comes from now on asks the store.
    pub(super) fn end(self, end: End) {
        let Seat { flights, key, flight } = &self.seat;
        let mut all = flights.flights();
        if let Entry::Occupied(entry) = all.entry(key.clone())
            && Arc::ptr_eq(&entry.get().0, flight)
        {
            entry.remove();
        }
        drop(all);
        // There is one turn, and it ends here: nobody else has set it.
        let _ = flight.end.set(end);
        flight.turn.close();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.flights.flights();
        if let Entry::Occupied(mut entry) = all.entry(self.key.clone())
            && Arc::ptr_eq(&entry.get().0, &self.flight)
        {
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            }
        }
    }
}

impl End {
    fn shared(&self) -> Result<Known, Refusal> {
        match self {
            Self::Known(known) => Ok(known.clone()),
            Self::Conflict => Err(Refusal::Conflict),
            Self::Store { kind, cause } => {
                Err(Refusal::Store(StoreError::new(*kind, "claim a key", cause.clone())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn join(flights: &Arc<Flights>) -> Seat {
        flights.join(RecordKey::new("scope", "a").unwrap(), None)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    async fn turn(flights: &Arc<Flights>) -> Turn {
        match join(flights).wait(soon()).await {
            Waited::Mine(turn) => turn,
            Waited::Ended(_) | Waited::TooLong => panic!("it is this one's turn"),
        }
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_flight_however_it_ends() {
        let flights = Arc::<Flights>::default();
        drop(join(&flights));
        assert!(flights.is_empty());
        let first = turn(&flights).await;
        assert!(matches!(join(&flights).wait(Instant::now()).await, Waited::TooLong));
        let waits = join(&flights);
        drop(first);
        let Waited::Mine(second) = waits.wait(soon()).await else { panic!("it is the next one") };
        let waits = join(&flights);
        second.end(End::Conflict);
        assert!(matches!(waits.wait(soon()).await, Waited::Ended(Err(Refusal::Conflict))));
        assert!(flights.is_empty());
    }

    /// Otherwise a stream of callers would never ask the store again.
    #[tokio::test]
    async fn who_comes_after_the_end_begins_anew() {
        let flights = Arc::<Flights>::default();
        let first = turn(&flights).await;
        let slow = join(&flights);
        first.end(End::Known(Known { kept: None, since: None }));
        let second = turn(&flights).await;
        drop(slow);
        assert!(matches!(join(&flights).wait(Instant::now()).await, Waited::TooLong));
        drop(second);
        assert!(flights.is_empty());
    }
}
