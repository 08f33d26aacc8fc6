//! Futures that are looked at together.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Futures in flight. Unlike `FuturesUnordered` it gives one promise about order: when the output of
/// a future is returned, the outputs of all that were ready before it have been returned, or are
/// returned with it.
pub(super) struct Flights<F: Future> {
    places: Vec<Option<Flight<F>>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// Outputs that wait for those that may have been ready before them.
    landed: Vec<F::Output>,
    is_holding: bool,
}

struct Flight<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// The places of those that woke, in their order.
#[derive(Default)]
struct Woken {
    places: Mutex<VecDeque<usize>>,
    task: AtomicWaker,
}

struct Bell {
    place: usize,
    rung: AtomicBool,
    woken: Arc<Woken>,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.woken.lock().push_back(self.place);
            self.woken.task.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl Woken {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<usize>> {
        // Nothing panics while it is held.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future> Flights<F> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            woken: Arc::default(),
            landed: Vec::new(),
            is_holding: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == self.free.len() && self.landed.is_empty()
    }

    /// Takes a future. They are polled first in the order in which they were taken.
    pub(super) fn push(&mut self, future: F) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let rung = AtomicBool::new(false);
        let bell = Arc::new(Bell { place, rung, woken: Arc::clone(&self.woken) });
        let waker = Waker::from(Arc::clone(&bell));
        bell.ring();
        self.places[place] = Some(Flight { future: Box::pin(future), bell, waker });
    }

    /// The outputs of those that are ready; at least one.
    pub(super) async fn landed(&mut self) -> Vec<F::Output> {
        std::future::poll_fn(|cx| self.poll_landed(cx)).await
    }

    fn poll_landed(&mut self, cx: &mut Context<'_>) -> Poll<Vec<F::Output>> {
        self.woken.task.register(cx.waker());
        // To the end, and not to the first that is ready: another may have been ready before it,
        // and stand behind it for having woken for another reason. But one that wakes itself, as
        // all of tokio's do once a task has used up its budget, gets no further before this returns.
        let mut turns = 2 * self.places.len() + 16;
        let mut is_cut_short = false;
        while let Some(place) = self.next_woken() {
            if turns == 0 {
                self.woken.lock().push_front(place);
                cx.waker().wake_by_ref();
                is_cut_short = true;
                break;
            }
            turns -= 1;
            let Some(flight) = &mut self.places[place] else { continue };
            flight.bell.rung.store(false, Ordering::SeqCst);
            let mut cx = Context::from_waker(&flight.waker);
            if let Poll::Ready(output) = flight.future.as_mut().poll(&mut cx) {
                self.places[place] = None;
                self.free.push(place);
                self.landed.push(output);
            }
        }
        // With a new budget they say whether they were ready. Who wakes itself then was not.
        self.is_holding = is_cut_short && !self.is_holding;
        if self.landed.is_empty() || self.is_holding {
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut self.landed))
    }

    fn next_woken(&self) -> Option<usize> {
        self.woken.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn all_that_are_ready_land_together_whatever_they_woke_for_first() {
        let mut flights = Flights::new();
        let (mut stages, mut ends) = (Vec::new(), Vec::new());
        for number in 0..4 {
            let (stage, staged) = oneshot::channel::<()>();
            let (end, ended) = oneshot::channel::<()>();
            stages.push(stage);
            ends.push(end);
            flights.push(async move {
                staged.await.unwrap();
                ended.await.unwrap();
                number
            });
        }
        let nothing = std::future::poll_fn(|cx| Poll::Ready(flights.poll_landed(cx)));
        assert!(nothing.await.is_pending());
        for stage in stages.drain(..).rev() {
            stage.send(()).unwrap();
        }
        for end in ends.drain(..) {
            end.send(()).unwrap();
        }
        let mut landed = flights.landed().await;
        landed.sort_unstable();
        assert_eq!(landed, [0, 1, 2, 3]);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn one_that_wakes_itself_lets_others_get_on() {
        let mut flights = Flights::new();
        let (end, mut ended) = oneshot::channel::<()>();
        let restless = std::future::poll_fn(move |cx| {
            cx.waker().wake_by_ref();
            Pin::new(&mut ended).poll(cx).map(|_| "restless")
        });
        let patient: Pin<Box<dyn Future<Output = &str>>> = Box::pin(async { "patient" });
        flights.push(Box::pin(restless) as Pin<Box<dyn Future<Output = &str>>>);
        flights.push(patient);
        assert_eq!(flights.landed().await, ["patient"]);
        // On the one thread that there is, this runs only if looking at the flights pauses.
        tokio::spawn(async move { end.send(()) });
        assert_eq!(flights.landed().await, ["restless"]);
        assert!(flights.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn places_are_used_again_and_nobody_is_forgotten() {
        let mut flights = Flights::new();
        let mut landed = Vec::new();
        for number in 0..1_000_u64 {
            flights.push(async move {
                let task =
                    tokio::spawn(tokio::time::sleep(std::time::Duration::from_micros(number)));
                task.await.unwrap();
                number
            });
            if number % 3 == 0 {
                landed.extend(flights.landed().await);
            }
        }
        while !flights.is_empty() {
            landed.extend(flights.landed().await);
        }
        landed.sort_unstable();
        assert_eq!(landed, (0..1_000).collect::<Vec<_>>());
    }
}
