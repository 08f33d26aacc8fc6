//! The checker catches what is wrong, and excuses what is promised.

use std::fs;

use mmate_core::checker::{Checker, EndState, Event, Journal, Promise, Verdict, What, read};

fn event(at: u64, what: What, id: &str, by: &str) -> Event {
    Event::now(what, id).by(by).at(at)
}

fn published(ids: &[&str]) -> Vec<Event> {
    let both = |id: &&str| [Event::attempted(*id), Event::confirmed(*id)].map(|event| event.at(1));
    ids.iter().flat_map(both).collect()
}

fn judge(promise: Promise, events: &[Event]) -> Verdict {
    judge_at_end(promise, events, &EndState::default())
}

fn judge_at_end(promise: Promise, events: &[Event], end: &EndState) -> Verdict {
    let mut checker = Checker::new(promise);
    events.iter().for_each(|event| checker.take(event));
    checker.verdict(end)
}

fn with(mut events: Vec<Event>, more: impl IntoIterator<Item = Event>) -> Vec<Event> {
    events.extend(more);
    events
}

#[test]
fn each_kind_of_wrong_is_caught() {
    let clean = with(published(&["a", "b"]), ["a", "b"].map(|id| event(5, What::Effect, id, "p")));
    let set = |more: Event, name: &str, of: &[&str]| {
        let verdict = judge(Promise::EffectOnce, &with(clean.clone(), [more]));
        assert!(!verdict.is_clean(), "{verdict}");
        let found = verdict.sets().into_iter().filter(|(_, set)| !set.is_empty());
        let found: Vec<_> = found.collect();
        assert_eq!(found.len(), 1, "{verdict}");
        assert_eq!(found[0].0, name);
        assert_eq!(found[0].1, of);
    };
    assert!(judge(Promise::EffectOnce, &clean).is_clean());
    set(event(9, What::Effect, "a", "q"), "double", &["a"]);
    set(Event::confirmed("c"), "lost", &["c"]);
    set(event(9, What::Effect, "z", "q"), "unexpected", &["z"]);
    set(event(9, What::Parked, "b", ""), "innocents parked", &["b"]);
    set(event(9, What::Poison, "b", ""), "poison not parked", &["b"]);
    // What never took effect was taken for something that did.
    set(event(9, What::Suppressed, "c", "q"), "wrongly suppressed", &["c"]);
    let done = |by: &str| event(9, What::Done, "a", by);
    let noted = with(clean.clone(), [done("p")]);
    assert!(judge(Promise::EffectOnce, &noted).is_clean());
    let verdict = judge(Promise::EffectOnce, &with(noted, [done("q")]));
    assert_eq!(verdict.noted_twice, ["a"]);
    let verdict = judge(Promise::EffectOnce, &with(clean, [Event::attempted("unconfirmed")]));
    assert!(verdict.is_clean(), "what was not confirmed may be gone: {verdict}");
}

#[test]
fn poison_belongs_among_the_dead_letters_and_an_unconfirmed_effect_is_recovered() {
    let events = with(
        published(&["p"]),
        [
            Event::now(What::Poison, "p"),
            Event::now(What::Parked, "p"),
            Event::attempted("u"),
            Event::effect("u"),
        ],
    );
    let verdict = judge(Promise::EffectOnce, &events);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.recovered, verdict.poison, verdict.parked), (1, 1, 1));
}

#[test]
fn what_is_left_in_the_end_is_told() {
    let end = EndState::default().queue("q", 2).queue("empty", 0);
    assert!(!judge_at_end(Promise::EffectOnce, &[], &end).is_clean());
    let end = EndState::default().stuck("a record of a is in progress");
    assert!(!judge_at_end(Promise::EffectOnce, &[], &end).is_clean());
    let end = EndState::default().counter("duplicates", 3, 4);
    let verdict = judge_at_end(Promise::EffectOnce, &[], &end);
    assert!(verdict.to_string().contains("duplicates says 3, not 4"), "{verdict}");
    let end = EndState::default().queue("empty", 0).counter("duplicates", 4, 4);
    assert!(judge_at_end(Promise::EffectOnce, &[], &end).is_clean());
}

#[test]
fn an_effect_behind_a_later_one_of_its_key_is_in_disorder_and_a_second_one_is_not() {
    let effect = |id: &str, key: &str, seq| Event::effect(id).in_order(key, seq);
    let ids = ["a1", "a2", "a3", "b1"];
    let right = with(
        published(&ids),
        [effect("a1", "a", 1), effect("a2", "a", 2), effect("b1", "b", 1), effect("a3", "a", 3)],
    );
    assert!(judge(Promise::EffectOnce, &right).is_clean());
    let wrong = with(
        published(&ids),
        [effect("a1", "a", 1), effect("a3", "a", 3), effect("a2", "a", 2), effect("b1", "b", 1)],
    );
    assert_eq!(judge(Promise::EffectOnce, &wrong).disorder, ["a2"]);
    let verdict = judge(Promise::EffectOnce, &with(right, [effect("a1", "a", 1)]));
    assert!(verdict.disorder.is_empty() && verdict.double == ["a1"], "{verdict}");
}

#[test]
fn a_crash_between_effect_and_record_explains_a_second_effect_where_that_is_promised() {
    let twice = [event(10, What::Effect, "a", "p"), event(30, What::Effect, "a", "q")];
    let crash = event(20, What::Fault, "", "p");
    let done = event(15, What::Done, "a", "p");
    let judge_doubles = |promise, more: &[&Event]| {
        let events = with(published(&["a"]), twice.clone());
        let verdict = judge(promise, &with(events, more.iter().map(|event| (*event).clone())));
        (verdict.double.len(), verdict.explained.len())
    };
    let lenient = Promise::EffectOnceUnlessCrashed;
    assert_eq!(judge_doubles(lenient, &[&crash]), (0, 1));
    assert_eq!(judge_doubles(Promise::EffectOnce, &[&crash]), (1, 0));
    assert_eq!(judge_doubles(lenient, &[]), (1, 0), "nothing happened to p");
    assert_eq!(judge_doubles(lenient, &[&crash, &done]), (1, 0), "p had noted it");
    let elsewhere = [event(20, What::Fault, "", "q"), event(40, What::Fault, "", "p")];
    assert_eq!(judge_doubles(lenient, &[&elsewhere[0], &elsewhere[1]]), (1, 0));
    // The second one was frozen before its effect, and went on when the message was another's.
    let frozen = [event(5, What::Began, "a", "q"), event(7, What::Fault, "", "q")];
    assert_eq!(judge_doubles(lenient, &[&frozen[0], &frozen[1]]), (0, 1));
    assert_eq!(judge_doubles(lenient, &[&frozen[0]]), (1, 0));
}

#[test]
fn journals_are_read_back_and_convict() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let events = with(
        published(&["a", "b"]),
        [
            event(2, What::Effect, "a", "p"),
            event(3, What::Fault, "", "p"),
            event(3, What::Fault, "", "r"),
            event(4, What::Effect, "a", "q"),
            event(5, What::Effect, "b", "q").in_order("k", 7),
        ],
    );
    for half in [&events[..4], &events[4..]] {
        let journal = Journal::append(&path).unwrap();
        half.iter().for_each(|event| journal.note(event).unwrap());
    }
    // A process was killed while it wrote.
    fs::write(&path, [fs::read(&path).unwrap(), b"{\"at\":6,".to_vec()].concat()).unwrap();
    let again: Vec<_> = read(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(again, events);

    let verdict = judge(Promise::EffectOnce, &again);
    let histories = verdict.convict(10, &again);
    let told: Vec<_> = histories["a"].iter().map(|event| (event.what, &*event.by)).collect();
    assert_eq!(
        told,
        [
            (What::Attempted, ""),
            (What::Confirmed, ""),
            (What::Effect, "p"),
            (What::Fault, "p"),
            (What::Effect, "q"),
        ]
    );
    assert_eq!(histories.len(), 1);
    let line = events.last().unwrap().to_string();
    assert_eq!(line, "1970-01-01T00:00:00.000005Z effect b by q (k #7)");
}

#[test]
fn a_line_that_is_no_event_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    fs::write(&path, "nonsense\n").unwrap();
    let error = read(&path).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().starts_with("line 1 of the journal"), "{error}");
    assert!(read(folder.path().join("none")).err().unwrap().to_string().contains("none"));
}
