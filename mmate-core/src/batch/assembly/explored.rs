//! Messages come and leave, in every order that shuttle finds.

use shuttle::future::{block_on, spawn};

use super::*;

const ORDERS: usize = 5_000;

/// The batch begins when the last one has come or left, whoever that is, and is broken exactly if one has left.
#[test]
fn whoever_comes_or_leaves_last_lets_the_batch_begin() {
    for leaves in [None, Some(0), Some(2)] {
        let body = move || {
            block_on(async move {
                let assembly = Assembly::new(3, ());
                let come = (0..3).map(|place| {
                    let seat = assembly.seat(place);
                    spawn(async move {
                        if leaves != Some(place) {
                            seat.take();
                        }
                        drop(seat);
                    })
                });
                let come: Vec<_> = come.collect();
                // A notification that is missed leaves this waiting, which shuttle tells as a deadlock.
                assembly.complete().await;
                assert_eq!(assembly.is_broken(), leaves.is_some());
                for one in come {
                    one.await.unwrap();
                }
            });
        };
        shuttle::check_random(body, ORDERS);
        shuttle::check_pct(body, ORDERS, 3);
    }
}
