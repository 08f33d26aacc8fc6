use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> Time {
    Time::from_millis(1_800_000_000_000 + seconds * 1000)
}

fn claim_by(owner: Owner, content: Option<u8>) -> Command {
    let fingerprint = content.map(|byte| Digest::from_bytes([byte; 16]));
    Command::Claim { owner, by: "s".into(), fingerprint, lease: LEASE, trace: None }
}

/// A record under test, with the time.
struct Bench {
    record: Option<Record>,
    now: Time,
    retention: Retention,
}

impl Bench {
    fn new() -> Self {
        Self { record: None, now: at(0), retention: Retention::window(WINDOW) }
    }

    fn ask(&mut self, command: Command) -> Verdict {
        let (record, verdict) = step(self.record.take(), command, self.now, &self.retention);
        self.record = record;
        verdict
    }

    fn claim(&mut self, content: u8) -> (Claim, Owner) {
        let owner = Owner::generate();
        let Verdict::Claim(claim) = self.ask(claim_by(owner, Some(content))) else {
            panic!("a claim is answered by a claim")
        };
        (claim, owner)
    }

    fn granted(&mut self) -> (Grant, Holder) {
        let (claim, owner) = self.claim(0);
        let Claim::Granted(grant) = claim else { panic!("not granted: {claim:?}") };
        (grant, Holder { owner, fence: grant.fence })
    }

    fn complete(&mut self, holder: Holder) -> Verdict {
        self.ask(Command::Complete { holder, reply: None })
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now = self.now + time;
        self
    }
}

const YES: Verdict = Verdict::Held(Held::Yes);
const REFUSED: Verdict = Verdict::Held(Held::Refused);

#[test]
fn a_copy_of_what_is_done_is_a_duplicate_that_knows_since_when_and_through_whom() {
    let mut bench = Bench::new();
    let (_, holder) = bench.granted();
    let done_at = bench.after(LEASE / 2).now;
    assert_eq!(bench.ask(Command::Complete { holder, reply: Some("r".into()) }), YES);
    bench.after(LEASE);
    let reply = Some("r".into());
    let seen = Seen { since: done_at, by: "s".into(), reply, trace: None };
    assert_eq!(bench.claim(0).0, Claim::Duplicate(seen));
}

/// S9
#[test]
fn what_was_given_back_is_claimed_at_once_as_the_next_attempt_with_a_higher_fence() {
    let mut bench = Bench::new();
    let (first, holder) = bench.granted();
    assert_eq!(bench.ask(Command::Release { holder }), YES);
    let (second, _) = bench.granted();
    assert_eq!((second.attempt, second.fence), (first.attempt + 1, first.fence + 1));
    assert!(!second.taken_over);
}

/// S14
#[test]
fn nobody_takes_over_before_the_lease_ends_and_anybody_after() {
    let mut bench = Bench::new();
    let (first, _) = bench.granted();
    bench.after(LEASE - Duration::from_millis(1));
    assert_eq!(bench.claim(0).0, Claim::Busy { remaining: Duration::from_millis(1) });
    bench.after(Duration::from_millis(1));
    let (second, _) = bench.granted();
    assert_eq!(second, Grant { fence: first.fence + 1, attempt: 2, taken_over: true });
}

/// S19
#[test]
fn who_was_overtaken_is_refused_everything_and_changes_nothing() {
    let mut bench = Bench::new();
    let (_, zombie) = bench.granted();
    bench.after(LEASE);
    let (_, second) = bench.granted();
    for done in [false, true] {
        let before = bench.record.clone();
        assert_eq!(bench.ask(Command::Heartbeat { holder: zombie, lease: LEASE }), REFUSED);
        assert_eq!(bench.complete(zombie), REFUSED);
        assert_eq!(bench.ask(Command::Release { holder: zombie }), REFUSED);
        assert_eq!(bench.record, before);
        if !done {
            assert_eq!(bench.complete(second), YES);
        }
    }
}

/// S18
#[test]
fn a_lease_lasts_for_as_long_as_it_is_prolonged() {
    let mut bench = Bench::new();
    let (_, holder) = bench.granted();
    for _ in 0..20 {
        bench.after(LEASE - Duration::from_millis(1));
        assert_eq!(bench.ask(Command::Heartbeat { holder, lease: LEASE }), YES);
        assert!(matches!(bench.claim(0).0, Claim::Busy { .. }));
    }
    assert_eq!(bench.complete(holder), YES);
}

/// It is the takeover that ends a claim: nobody else has worked on it, so there is no reason to
/// let the work be done twice.
#[test]
fn who_is_late_but_was_not_overtaken_still_completes() {
    let mut bench = Bench::new();
    let (_, holder) = bench.granted();
    bench.after(LEASE * 2);
    assert_eq!(bench.complete(holder), YES);
}

/// S33
#[test]
fn another_content_is_a_conflict_while_in_progress_and_when_done_and_none_once_given_back() {
    let mut bench = Bench::new();
    let (_, holder) = bench.granted();
    assert_eq!(bench.claim(1).0, Claim::Conflict);
    bench.after(LEASE);
    assert_eq!(bench.claim(1).0, Claim::Conflict, "also when nobody works on it any more");
    assert_eq!(bench.complete(holder), YES);
    assert_eq!(bench.claim(1).0, Claim::Conflict);

    let mut bench = Bench::new();
    let (_, holder) = bench.granted();
    assert_eq!(bench.ask(Command::Release { holder }), YES);
    assert!(matches!(bench.claim(1).0, Claim::Granted(_)), "a corrected replay runs");
}

/// S45
#[test]
fn the_same_question_gets_the_same_answer() {
    let mut bench = Bench::new();
    let owner = Owner::generate();
    let first = bench.ask(claim_by(owner, Some(0)));
    let Verdict::Claim(Claim::Granted(grant)) = first else { panic!("not granted: {first:?}") };
    assert_eq!(bench.ask(claim_by(owner, Some(0))), first);
    bench.after(LEASE * 2);
    assert_eq!(bench.ask(claim_by(owner, Some(0))), first, "late, but nobody took over");
    let holder = Holder { owner, fence: grant.fence };
    assert_eq!(bench.complete(holder), YES);
    let done = bench.record.clone();
    bench.after(LEASE);
    assert_eq!(bench.complete(holder), YES);
    assert_eq!(bench.record, done);

    let mut bench = Bench::new();
    let (_, holder) = bench.granted();
    assert_eq!(bench.ask(Command::Release { holder }), YES);
    assert_eq!(bench.ask(Command::Release { holder }), YES);
}

/// S37
#[test]
fn the_window_counts_from_done_and_after_it_the_message_runs() {
    let mut bench = Bench::new();
    let (first, holder) = bench.granted();
    bench.after(LEASE);
    assert_eq!(bench.complete(holder), YES);
    bench.after(WINDOW - Duration::from_millis(1));
    assert!(matches!(bench.claim(0).0, Claim::Duplicate(_)));
    bench.after(Duration::from_millis(1));
    let (second, _) = bench.granted();
    assert_eq!(second.attempt, 1);
    assert!(second.fence > first.fence);
}

#[test]
fn without_a_window_a_duplicate_is_recognised_for_ever() {
    let mut bench = Bench::new();
    bench.retention = Retention::unlimited();
    let (_, holder) = bench.granted();
    assert_eq!(bench.complete(holder), YES);
    bench.now = Time::from_millis(i64::MAX as u64);
    assert_eq!(bench.ask(Command::Purge), Verdict::Purged(false));
    assert!(matches!(bench.claim(0).0, Claim::Duplicate(_)));
}

/// S40
#[test]
fn what_was_given_back_or_abandoned_is_forgotten_after_a_window() {
    for release in [false, true] {
        let mut bench = Bench::new();
        let (_, holder) = bench.granted();
        if release {
            assert_eq!(bench.ask(Command::Release { holder }), YES);
        } else {
            bench.after(LEASE);
        }
        bench.after(WINDOW - Duration::from_millis(1));
        assert_eq!(bench.ask(Command::Purge), Verdict::Purged(false));
        bench.after(Duration::from_millis(1));
        assert_eq!(bench.ask(Command::Purge), Verdict::Purged(true));
        assert_eq!(bench.record, None);
    }
}

#[test]
fn nobody_holds_a_record_that_is_absent() {
    let mut bench = Bench::new();
    let holder = Holder { owner: Owner::generate(), fence: 1 };
    assert_eq!(bench.ask(Command::Heartbeat { holder, lease: LEASE }), REFUSED);
    assert_eq!(bench.complete(holder), REFUSED);
    assert_eq!(bench.ask(Command::Release { holder }), REFUSED);
    assert_eq!(bench.record, None);
}

/// What is done to a record, with who does it chosen among a few.
#[derive(Debug, Clone)]
enum Deed {
    Claim { who: usize, content: u8 },
    Heartbeat { who: usize },
    Complete { who: usize },
    Release { who: usize },
    Purge,
    Wait { millis: u64 },
}

fn deed() -> impl Strategy<Value = Deed> {
    let who = 0..3_usize;
    prop_oneof![
        4 => (who.clone(), 0..2_u8).prop_map(|(who, content)| Deed::Claim { who, content }),
        2 => who.clone().prop_map(|who| Deed::Heartbeat { who }),
        2 => who.clone().prop_map(|who| Deed::Complete { who }),
        2 => who.prop_map(|who| Deed::Release { who }),
        1 => Just(Deed::Purge),
        3 => prop_oneof![1..70_000_u64, 3_000_000..4_000_000_u64]
            .prop_map(|millis| Deed::Wait { millis }),
    ]
}

/// Does it; each claim is by a fresh owner, whom the later deeds of that `who` then name.
fn play(deeds: &[Deed], purge: bool, mut each: impl FnMut(&Deed, &Bench, &Verdict)) {
    let mut bench = Bench::new();
    let mut holders = [Holder { owner: Owner::from_bytes([0; 16]), fence: 0 }; 3];
    for (number, deed) in deeds.iter().enumerate() {
        let command = match deed {
            Deed::Claim { who, content } => {
                holders[*who] =
                    Holder { owner: Owner::from_bytes([number as u8 + 1; 16]), fence: 0 };
                claim_by(holders[*who].owner, Some(*content))
            }
            Deed::Heartbeat { who } => Command::Heartbeat { holder: holders[*who], lease: LEASE },
            Deed::Complete { who } => Command::Complete { holder: holders[*who], reply: None },
            Deed::Release { who } => Command::Release { holder: holders[*who] },
            Deed::Purge if purge => Command::Purge,
            Deed::Purge => continue,
            Deed::Wait { millis } => {
                bench.after(Duration::from_millis(*millis));
                continue;
            }
        };
        let verdict = bench.ask(command);
        if let (Deed::Claim { who, .. }, Verdict::Claim(Claim::Granted(grant))) = (deed, &verdict) {
            holders[*who].fence = grant.fence;
        }
        each(deed, &bench, &verdict);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// S20: across takeovers, releases, windows and purges.
    #[test]
    fn the_fence_of_each_grant_is_higher_than_all_before(
        deeds in prop::collection::vec(deed(), 1..60),
    ) {
        let mut highest = 0;
        play(&deeds, true, |_, _, verdict| {
            if let Verdict::Claim(Claim::Granted(grant)) = verdict {
                assert!(grant.fence > highest, "{} after {highest}", grant.fence);
                highest = grant.fence;
            }
        });
    }

    /// S39: it may be purged at any time, by anybody.
    #[test]
    fn a_purge_changes_no_answer(deeds in prop::collection::vec(deed(), 1..60)) {
        let answers = |purge| {
            let mut answers = Vec::new();
            play(&deeds, purge, |deed, _, verdict| {
                // How high a fence is, is nobody's business but that it rises.
                let mut verdict = verdict.clone();
                if let Verdict::Claim(Claim::Granted(grant)) = &mut verdict {
                    grant.fence = 0;
                }
                if !matches!(deed, Deed::Purge) {
                    answers.push(verdict);
                }
            });
            answers
        };
        prop_assert_eq!(answers(true), answers(false));
    }

    /// S1, S14: of two grants, either the first was given back, or its lease is over, or the window
    /// of what it did is.
    #[test]
    fn a_second_grant_needs_the_end_of_the_first(deeds in prop::collection::vec(deed(), 1..60)) {
        let mut held: Option<(Time, usize)> = None;
        let mut done_until = None;
        play(&deeds, true, |deed, bench, verdict| match (deed, verdict) {
            (Deed::Claim { who, .. }, Verdict::Claim(Claim::Granted(_))) => {
                assert!(held.is_none_or(|(until, _)| until <= bench.now));
                assert!(done_until.is_none_or(|until| until <= bench.now));
                (held, done_until) = (Some((bench.now + LEASE, *who)), None);
            }
            (Deed::Heartbeat { who }, verdict) if *verdict == YES => {
                held = Some((bench.now + LEASE, *who));
            }
            (Deed::Complete { .. }, verdict) if *verdict == YES => {
                held = None;
                done_until.get_or_insert(bench.now + WINDOW);
            }
            (Deed::Release { .. }, verdict) if *verdict == YES => held = None,
            _ => {}
        });
    }
}
