//! Calls that come, gather and are answered, in every order that shuttle finds.

use std::collections::HashMap;

use shuttle::future::{block_on, yield_now};

use super::*;
use crate::protocol::Grant;
use crate::store::Claimant;

const ORDERS: usize = 3_000;

/// A store that looks at what it is asked at once.
#[derive(Clone, Default)]
struct Watchful {
    under_way: Arc<Mutex<HashSet<RecordKey>>>,
    fences: Arc<Mutex<HashMap<RecordKey, u64>>>,
}

#[async_trait]
impl Together for Watchful {
    async fn answer(&self, calls: &[Call]) -> Result<Vec<Verdict>, StoreError> {
        for call in calls {
            let is_alone = self.under_way.lock().unwrap().insert(call.key().clone());
            assert!(is_alone, "two ask about {:?} at once", call.key());
        }
        yield_now().await;
        let mut verdicts = Vec::new();
        for call in calls {
            verdicts.push(match call {
                Call::Claim(_) => {
                    let mut fences = self.fences.lock().unwrap();
                    let fence = fences.entry(call.key().clone()).or_default();
                    *fence += 1;
                    Verdict::Claim(Claim::Granted(Grant {
                        fence: *fence,
                        attempt: 1,
                        taken_over: false,
                    }))
                }
                _ => Verdict::Held(Held::Yes),
            });
        }
        for call in calls {
            self.under_way.lock().unwrap().remove(call.key());
        }
        Ok(verdicts)
    }
}

/// Until nobody serves any more, which a lane that is never closed keeps from coming.
async fn until_closed(coalescer: &Coalescer<Watchful>) {
    while coalescer.0.desk().lanes > 0 {
        yield_now().await;
    }
    let desk = coalescer.0.desk();
    assert!(desk.waiting.is_empty() && desk.busy.is_empty());
}

fn request(id: &str) -> ClaimRequest<'static> {
    let key = RecordKey::new("scope", id).unwrap();
    ClaimRequest::new(key, Claimant::default(), Duration::from_secs(1))
}

/// Each call has an answer, whenever it comes: one that nobody took would wait for ever, which shuttle tells as a deadlock.
/// No two round trips are about the same key.
#[test]
fn every_call_is_answered_and_no_key_is_asked_about_twice_at_once() {
    for (most, lanes) in [(1, 1), (2, 2), (64, 2)] {
        let body = move || {
            block_on(async move {
                let store = Watchful::default();
                let coalescer = Coalescer::new(store.clone(), most, lanes);
                let callers: Vec<_> = ["a", "b", "a", "c"]
                    .map(|id| {
                        let coalescer = coalescer.clone();
                        spawn(async move {
                            let request = request(id);
                            let Claim::Granted(grant) = coalescer.claim(&request).await.unwrap()
                            else {
                                panic!("it is granted");
                            };
                            let permit = Permit::new(&request, grant);
                            let held = coalescer.held(Call::Release { permit }).await.unwrap();
                            assert_eq!(held, Held::Yes);
                        })
                    })
                    .into();
                for caller in callers {
                    caller.await.unwrap();
                }
                until_closed(&coalescer).await;
                assert_eq!(store.fences.lock().unwrap().values().sum::<u64>(), 4);
            });
        };
        shuttle::check_random(body, ORDERS);
        shuttle::check_pct(body, ORDERS, 3);
    }
}

/// A caller that gives up leaves nothing behind that another would wait for.
#[test]
fn one_that_gives_up_holds_nobody_up() {
    let body = || {
        block_on(async {
            let coalescer = Coalescer::new(Watchful::default(), 2, 1);
            let gives_up = {
                let coalescer = coalescer.clone();
                spawn(async move { drop(coalescer.claim(&request("a")).await) })
            };
            let stays = {
                let coalescer = coalescer.clone();
                spawn(async move { coalescer.claim(&request("a")).await.unwrap() })
            };
            yield_now().await;
            gives_up.abort();
            stays.await.unwrap();
            until_closed(&coalescer).await;
        });
    };
    shuttle::check_random(body, ORDERS);
    shuttle::check_pct(body, ORDERS, 3);
}
