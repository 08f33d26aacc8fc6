//! Calls of one process for one key, in every order that shuttle finds.

use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};

use super::*;

const ORDERS: usize = 5_000;

/// One works at a time; who gives up hands the turn on; who waits is told of the end; nothing is left.
#[test]
fn one_works_and_all_are_told() {
    // Nobody waits so long here; the clock of this runtime is only there to be asked.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    for gives_up in [0, 1, 3] {
        let body = move || {
            block_on(async move {
                let flights = Arc::<Flights>::default();
                let ended = Arc::new(Mutex::new(Vec::<Arc<Flight>>::new()));
                let callers: Vec<_> = (0..3)
                    .map(|caller| {
                        let (flights, ended) = (Arc::clone(&flights), Arc::clone(&ended));
                        spawn(async move {
                            let until = Instant::now() + Duration::from_secs(3600);
                            let seat = flights.join(RecordKey::new("scope", "a").unwrap(), None);
                            let flight = Arc::clone(&seat.flight);
                            let is_over = |ended: &[Arc<Flight>]| {
                                ended.iter().any(|other| Arc::ptr_eq(other, &flight))
                            };
                            match seat.wait(until).await {
                                Waited::Mine(turn) => {
                                    yield_now().await;
                                    // Another at work would have ended it meanwhile, and so would one before.
                                    assert!(!is_over(&ended.lock().unwrap()));
                                    if caller < gives_up {
                                        return drop(turn);
                                    }
                                    ended.lock().unwrap().push(Arc::clone(&flight));
                                    turn.end(End::Known(Known { kept: None, since: None }));
                                }
                                Waited::Ended(end) => {
                                    assert!(end.is_ok() && is_over(&ended.lock().unwrap()));
                                }
                                Waited::TooLong => panic!("an hour has gone by"),
                            }
                        })
                    })
                    .collect();
                for caller in callers {
                    caller.await.unwrap();
                }
                assert!(flights.is_empty());
            });
        };
        shuttle::check_random(body, ORDERS);
        shuttle::check_pct(body, ORDERS, 3);
    }
}
