//! Threads that claim one key, in every order that shuttle finds.

use shuttle::future::block_on;
use shuttle::thread;

use super::*;
use crate::store::Claimant;

const ORDERS: usize = 3_000;
const LEASE: Duration = Duration::from_secs(10);

fn request() -> ClaimRequest<'static> {
    let key = RecordKey::new("scope", "a").unwrap();
    ClaimRequest::new(key, Claimant::default(), LEASE)
}

/// Whoever claims, gives back and completes, and whenever leases run out meanwhile: one completes, fences rise,
/// and afterwards everybody is told that it is done.
#[test]
fn one_completes_and_fences_rise() {
    let body = || {
        let clock = ManualClock::new();
        let store = MemoryStore::new().capacity(16).clock(clock.clone());
        // What was granted and completed, in the order in which it was seen: a lock of our own.
        let seen = Arc::new(Mutex::new((0_u64, 0_u32)));
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let (store, seen) = (store.clone(), Arc::clone(&seen));
                thread::spawn(move || {
                    block_on(async {
                        let request = request();
                        let Claim::Granted(grant) = store.claim(&request).await.unwrap() else {
                            return;
                        };
                        let permit = Permit::new(&request, grant);
                        let prolonged = store.heartbeat(&permit, LEASE).await.unwrap();
                        if worker == 0 {
                            let _ = store.release(&permit).await.unwrap();
                            return;
                        }
                        let held = store.complete(&permit, None).await.unwrap();
                        if held == Held::Yes {
                            let mut seen = seen.lock().unwrap();
                            assert!(grant.fence > seen.0, "a fence is higher than those before it");
                            *seen = (grant.fence, seen.1 + 1);
                        }
                        // Who was told that it lost the lease never gets it back.
                        assert!(prolonged == Held::Yes || held == Held::Refused);
                    });
                })
            })
            .collect();
        clock.advance(LEASE + Duration::from_secs(1));
        for worker in workers {
            worker.join().unwrap();
        }
        let (_, completed) = *seen.lock().unwrap();
        assert!(completed <= 1, "{completed} have completed it");
        if completed == 1 {
            let claim = block_on(store.claim(&request())).unwrap();
            assert!(matches!(claim, Claim::Duplicate(_)), "{claim:?}");
        }
    };
    shuttle::check_random(body, ORDERS);
    shuttle::check_pct(body, ORDERS, 3);
}
