//! Taking down what happened, and judging it.

use std::collections::{HashMap, HashSet};

use super::event::{Event, What};
use super::fate::{Fate, Moment};
use super::verdict::Verdict;

/// What is promised, see `docs/delivery-guarantees.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Promise {
    /// Effect and record are one: nothing excuses a second effect.
    EffectOnce,
    /// A process that is harmed between effect and record repeats the effect. Each second one has
    /// to be explained by such a [`What::Fault`], with no [`What::Done`] of that process.
    EffectOnceUnlessCrashed,
}

/// What is left when all is quiet. As it is by default, nothing is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndState {
    /// Queues, and how many messages are in each, unacknowledged ones with them.
    pub queues: Vec<(String, u64)>,
    /// Records in progress and transactions that nobody is at work on, in words.
    pub stuck: Vec<String>,
    /// Counters by name: what the system says, and what is true.
    pub counters: Vec<(String, u64, u64)>,
}

impl EndState {
    /// So many messages are in a queue.
    #[must_use]
    pub fn queue(mut self, name: impl Into<String>, messages: u64) -> Self {
        self.queues.push((name.into(), messages));
        self
    }

    /// Something is stuck.
    #[must_use]
    pub fn stuck(mut self, what: impl Into<String>) -> Self {
        self.stuck.push(what.into());
        self
    }

    /// What a counter of the system says, and what is true.
    #[must_use]
    pub fn counter(mut self, name: impl Into<String>, says: u64, truth: u64) -> Self {
        self.counters.push((name.into(), says, truth));
        self
    }
}

/// Takes down what happened. It needs some 200 bytes of memory for each message.
///
/// The events may come in any order, but for effects of one key: they come in the order in which
/// they happened.
#[derive(Debug)]
pub struct Checker {
    promise: Promise,
    fates: HashMap<Box<str>, Fate>,
    processes: HashMap<Box<str>, u32>,
    /// When each process was harmed.
    faults: HashMap<u32, Vec<u64>>,
    /// Whoever was harmed at the same time was harmed by one fault.
    fault_times: HashSet<u64>,
    published: u64,
    /// The highest place so far of each key.
    reached: HashMap<Box<str>, u64>,
}

impl Checker {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(promise: Promise) -> Self {
        Self {
            promise,
            fates: HashMap::new(),
            processes: HashMap::new(),
            faults: HashMap::new(),
            fault_times: HashSet::new(),
            published: 0,
            reached: HashMap::new(),
        }
    }

    /// Takes an event down.
    pub fn take(&mut self, event: &Event) {
        let by = self.process(&event.by);
        if event.what == What::Fault {
            self.fault_times.insert(event.at);
            self.faults.entry(by).or_default().push(event.at);
            return;
        }
        if event.what == What::Confirmed {
            self.published += 1;
        }
        let in_disorder = event.what == What::Effect && self.is_in_disorder(event);
        let fate = match self.fates.get_mut(&*event.id) {
            Some(fate) => fate,
            None => self.fates.entry(event.id.as_str().into()).or_default(),
        };
        // A second effect is one evil, and a late one another.
        fate.in_disorder |= in_disorder && fate.effects.is_empty();
        fate.take(event.what, Moment { at: event.at, by });
    }

    /// Judges it.
    #[must_use]
    pub fn verdict(&self, end: &EndState) -> Verdict {
        let mut verdict = Verdict {
            published: self.published,
            faults: self.fault_times.len() as u64,
            queues: end.queues.iter().filter(|(_, left)| *left > 0).cloned().collect(),
            stuck: end.stuck.clone(),
            counters: end
                .counters
                .iter()
                .filter(|(_, says, truth)| says != truth)
                .cloned()
                .collect(),
            ..Verdict::default()
        };
        for (id, fate) in &self.fates {
            self.judge(id, fate, &mut verdict);
        }
        verdict.sort();
        verdict
    }

    fn judge(&self, id: &str, fate: &Fate, verdict: &mut Verdict) {
        verdict.attempted += u64::from(fate.attempted);
        verdict.confirmed += u64::from(fate.confirmed);
        verdict.effects += fate.effects.len() as u64;
        verdict.poison += u64::from(fate.poison);
        verdict.parked += u64::from(fate.parked);
        verdict.recovered +=
            u64::from(!fate.confirmed && fate.attempted && !fate.effects.is_empty());
        let is_there = !fate.effects.is_empty() || fate.parked;
        let mut put = |is_so: bool, set: fn(&mut Verdict) -> &mut Vec<String>| {
            if is_so {
                set(verdict).push(id.to_owned());
            }
        };
        put(fate.is_lost(), |v| &mut v.lost);
        put(is_there && !fate.attempted, |v| &mut v.unexpected);
        put(fate.parked && !fate.poison, |v| &mut v.innocents);
        put(fate.poison && fate.confirmed && !fate.parked, |v| &mut v.unparked);
        put(fate.suppressed && fate.effects.is_empty(), |v| &mut v.wrongly_suppressed);
        put(fate.done.len() > 1, |v| &mut v.noted_twice);
        put(fate.in_disorder, |v| &mut v.disorder);
        if fate.effects.len() > 1 {
            let is_excused = self.promise == Promise::EffectOnceUnlessCrashed
                && fate.is_explained(|by, from, to| self.was_harmed(by, from, to));
            put(is_excused, |v| &mut v.explained);
            put(!is_excused, |v| &mut v.double);
        }
    }

    fn was_harmed(&self, by: u32, from: u64, to: u64) -> bool {
        let faults = self.faults.get(&by);
        faults.is_some_and(|faults| faults.iter().any(|at| (from..=to).contains(at)))
    }

    fn is_in_disorder(&mut self, event: &Event) -> bool {
        let (Some(key), Some(seq)) = (&event.key, event.seq) else { return false };
        match self.reached.get_mut(key.as_str()) {
            Some(reached) if seq <= *reached => true,
            Some(reached) => {
                *reached = seq;
                false
            }
            None => {
                self.reached.insert(key.as_str().into(), seq);
                false
            }
        }
    }

    fn process(&mut self, name: &str) -> u32 {
        if let Some(number) = self.processes.get(name) {
            return *number;
        }
        let number = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        self.processes.insert(name.into(), number);
        number
    }
}
