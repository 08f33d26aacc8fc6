//! Work that fails.

use mmate_idempotency::protocol::Digest;
use mmate_idempotency::{Ran, RunError};

use crate::house::{Failure, Gate, House, failure, key, on_every_store};

on_every_store! {
    an_error_is_not_kept,
    an_error_is_kept_where_that_is_asked_for,
    a_panic_goes_on_in_the_caller_and_the_next_call_runs,
    the_same_key_for_something_else_is_a_conflict_also_while_it_is_worked_on,
    a_call_without_a_fingerprint_differs_from_none,
}

/// S9
async fn an_error_is_not_kept(house: House) {
    let instance = house.instance().await;
    let run = |ends: Result<usize, Failure>| instance.run(key("a"), None, async { ends });
    let error = run(Err(failure("no connection"))).await.unwrap_err();
    assert_eq!(error.to_string(), "the work failed");
    assert!(
        matches!(error, RunError::Failed { error, replayed: false } if error.0 == "no connection")
    );
    assert_eq!(run(Ok(1)).await.unwrap(), Ran::Fresh(1));
    assert_eq!(run(Err(failure("unseen"))).await.unwrap(), Ran::Replayed(1));
}

/// S10 keeps nothing of a message that failed for good; here the one who calls decides.
async fn an_error_is_kept_where_that_is_asked_for(house: House) {
    let (one, other) = (house.instance().await, house.instance().await);
    let run = |at: &mmate_idempotency::Idempotent, ends: Result<usize, Failure>| {
        at.run(key("a"), None, async { ends }).keep_errors(|error| error.0 == "card declined")
    };
    let passing = run(&one, Err(failure("no connection"))).await;
    assert!(matches!(passing, Err(RunError::Failed { replayed: false, .. })));
    let first = run(&one, Err(failure("card declined"))).await;
    assert!(matches!(first, Err(RunError::Failed { replayed: false, .. })));
    for at in [&one, &other] {
        let Err(RunError::Failed { error, replayed }) = run(at, Ok(1)).await else { panic!() };
        assert_eq!((error.0.as_str(), replayed), ("card declined", true));
    }
    // Who does not know of errors that are kept is told.
    let unaware = one.run(key("a"), None, async { Ok::<usize, Failure>(1) }).await;
    let Err(RunError::Undecodable { source, .. }) = unaware else { panic!("{unaware:?}") };
    assert!(source.to_string().contains("keep_errors"), "{source}");
}

/// S11
async fn a_panic_goes_on_in_the_caller_and_the_next_call_runs(house: House) {
    let instance = house.instance().await;
    for here in [false, true] {
        let id = format!("panic-{here}");
        let call = instance.run(key(&id), None, async {
            if true {
                panic!("the work panics");
            }
            Ok::<usize, Failure>(0)
        });
        let caller = match here {
            true => tokio::spawn(call.here()),
            false => tokio::spawn(call.into_future()),
        };
        let panic = caller.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the work panics"));
        let next = instance.run(key(&id), None, async { Ok::<_, Failure>(7) }).await;
        assert_eq!(next.unwrap(), Ran::Fresh(7));
    }
}

/// S33
async fn the_same_key_for_something_else_is_a_conflict_also_while_it_is_worked_on(house: House) {
    let (one, other) = (house.instance().await, house.instance().await);
    let gate = Gate::new();
    let first = tokio::spawn({
        let gate = gate.clone();
        one.run(key("a"), Digest::of("this"), async move {
            gate.pass().await;
            Ok::<_, Failure>(1)
        })
        .into_future()
    });
    gate.entered().await;
    let conflicts = async || {
        for at in [&one, &other] {
            let got = at.run(key("a"), Digest::of("that"), async { Ok::<_, Failure>(2) }).await;
            let error = got.unwrap_err();
            assert!(matches!(error, RunError::Conflict { .. }), "{error:?}");
            assert!(error.to_string().contains("\"a\" in \"scope\""), "{error}");
        }
    };
    conflicts().await;
    gate.open();
    assert_eq!(first.await.unwrap().unwrap(), Ran::Fresh(1));
    conflicts().await;
    let same = one.run(key("a"), Digest::of("this"), async { Ok::<_, Failure>(3) }).await;
    assert_eq!(same.unwrap(), Ran::Replayed(1));
}

async fn a_call_without_a_fingerprint_differs_from_none(house: House) {
    let instance = house.instance().await;
    let run = |fingerprint: Option<Digest>, value| {
        instance.run(key("a"), fingerprint, async move { Ok::<_, Failure>(value) })
    };
    assert_eq!(run(Some(Digest::of("this")), 1).await.unwrap(), Ran::Fresh(1));
    assert_eq!(run(None, 2).await.unwrap(), Ran::Replayed(1));
}
