//! The checker catches broken stores, from the outside: it sees effects, and not records.

use std::time::{Duration, Instant};

use mmate_core::checker::{Event, Verdict, What};

use crate::scene::play;
use crate::store::{Broken, Defect};

/// Plays with a store of this defect, and wants it convicted in one of these sets, with a history.
async fn convict(defect: Defect, sets: &[&str]) {
    let begin = Instant::now();
    let (verdict, events) = play(Broken::new(defect)).await;
    assert!(!verdict.is_clean(), "{defect:?} passed:\n{verdict}");
    let found: Vec<_> = verdict.sets().into_iter().filter(|(_, set)| !set.is_empty()).collect();
    assert!(found.iter().any(|(name, _)| sets.contains(name)), "{defect:?}:\n{verdict}");
    let histories = verdict.convict(3, &events);
    let (id, history) = histories.iter().next().unwrap();
    assert!(history.iter().any(|event| event.what == What::Confirmed), "{id}: {history:?}");
    println!(
        "{defect:?}: {:?}",
        found.iter().map(|(name, set)| (name, set.len())).collect::<Vec<_>>()
    );
    println!("{}", told(&verdict, &events));
    assert!(begin.elapsed() < Duration::from_secs(60));
}

/// The histories that convict.
fn told(verdict: &Verdict, events: &[Event]) -> String {
    let histories = verdict.convict(1, events);
    let lines = histories.iter().flat_map(|(id, history)| {
        let events = history.iter().map(|event| format!("    {event}"));
        std::iter::once(format!("{id}:")).chain(events)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A checker that convicts what is sound is of no use either.
#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_is_not_convicted() {
    let (verdict, events) = play(Broken::new(Defect::None)).await;
    assert!(verdict.is_clean(), "{verdict}\n{}", told(&verdict, &events));
    assert!(!verdict.explained.is_empty(), "nothing was frozen in the middle: {verdict}");
}

macro_rules! convicted {
    ($($(#[$doc:meta])* $name:ident: $defect:ident in $sets:expr;)*) => {
        $($(#[$doc])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            convict(Defect::$defect, &$sets).await;
        })*
    };
}

convicted! {
    /// S7
    check_then_mark_doubles: CheckThenMark in ["double", "noted twice"];
    /// S10
    marking_before_the_handler_loses: MarkBeforeTheHandler in ["lost"];
    /// S3
    acknowledging_what_is_in_progress_loses: AckWhenBusy in ["lost"];
    /// S19
    unlocking_without_being_the_owner_doubles: UnlockWithoutOwner in ["double", "noted twice"];
    /// S19
    completing_whoever_has_it_is_noted_twice: UnconditionalComplete in ["noted twice"];
    /// S31
    a_key_without_its_scope_loses: KeyByIdAlone in ["lost"];
    /// S36
    a_key_that_folds_case_loses: CaseFoldingKey in ["lost"];
    /// S41
    forgetting_what_is_in_progress_doubles: EvictInProgress in ["double", "noted twice"];
}
