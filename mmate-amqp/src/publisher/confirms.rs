//! Whose the returned messages are.
//!
//! The broker returns an unroutable message and then confirms it. lapin 4.12 puts returned messages
//! in a row, and hands the first of the row to whichever publish is confirmed next; if a confirm
//! covers several publishes, in no order at all. So a publish that found its queues can come with
//! the message of one that did not, and that one with nothing.
//!
//! What can be relied on: the message is in the row before its publish is confirmed. Hence
//! - a publish that comes with nothing found the row empty; its own message, if there was one, has
//!   been handed to one that was confirmed before it;
//! - one that comes with a stranger's message may have its own still in the row. Each message handed
//!   out shows a publish that is confirmed at once, and takes a message from the row in its turn. So
//!   when all of these are confirmed the row is empty, and what had no message until then has none.

use std::collections::HashMap;

/// The publishes whose fate is open, each known by a number, with what tells its message from
/// others (`P`).
#[derive(Debug)]
pub(super) struct Confirms<P> {
    last: u64,
    in_flight: HashMap<u64, Open<P>>,
    /// Confirmed with a stranger's message.
    held: Vec<(u64, P)>,
    /// How many in flight are known to be returned.
    owed: usize,
}

#[derive(Debug)]
struct Open<P> {
    publish: P,
    returned: bool,
}

/// A publish, and what came with its confirm.
pub(super) struct Confirmed<M> {
    pub(super) number: u64,
    pub(super) message: Option<M>,
}

/// A publish whose fate is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) number: u64,
    pub(super) returned: bool,
}

impl<P> Confirms<P> {
    pub(super) fn new() -> Self {
        Self { last: 0, in_flight: HashMap::new(), held: Vec::new(), owed: 0 }
    }

    /// A message is on its way.
    pub(super) fn add(&mut self, publish: P) -> u64 {
        self.last += 1;
        self.in_flight.insert(self.last, Open { publish, returned: false });
        self.last
    }

    /// Takes confirms in, and returns what is known then. With a confirm all that came before it
    /// must be in the batch, or in an earlier one. `is` says whether a message is a publish's own.
    pub(super) fn take<M>(
        &mut self,
        batch: Vec<Confirmed<M>>,
        is: impl Fn(&P, &M) -> bool,
    ) -> Vec<Decided> {
        let mut decided = Vec::new();
        let mut candidates = Vec::new();
        let mut messages = Vec::new();
        for Confirmed { number, message } in batch {
            // Each was added, and is confirmed once.
            let Some(Open { publish, returned }) = self.in_flight.remove(&number) else { continue };
            self.owed -= usize::from(returned);
            match (returned, &message) {
                (true, _) => decided.push(Decided { number, returned }),
                (false, _) => candidates.push(Candidate {
                    number,
                    publish,
                    has_message: message.is_some(),
                    returned: false,
                }),
            }
            messages.extend(message);
        }
        for message in &messages {
            self.hand_to_owner(message, &is, &mut candidates, &mut decided);
        }
        for candidate in candidates {
            let Candidate { number, publish, has_message, returned } = candidate;
            if returned || !has_message {
                decided.push(Decided { number, returned });
            } else {
                self.held.push((number, publish));
            }
        }
        if self.owed == 0 {
            let none_left = self.held.drain(..);
            decided.extend(none_left.map(|(number, _)| Decided { number, returned: false }));
        }
        decided
    }

    fn hand_to_owner<M>(
        &mut self,
        message: &M,
        is: &impl Fn(&P, &M) -> bool,
        candidates: &mut [Candidate<P>],
        decided: &mut Vec<Decided>,
    ) {
        let mut open = candidates.iter_mut().filter(|candidate| !candidate.returned);
        if let Some(owner) = open.find(|candidate| is(&candidate.publish, message)) {
            owner.returned = true;
            return;
        }
        if let Some(at) = self.held.iter().position(|(_, publish)| is(publish, message)) {
            let (number, _) = self.held.swap_remove(at);
            decided.push(Decided { number, returned: true });
            return;
        }
        let mut open = self.in_flight.values_mut().filter(|open| !open.returned);
        match open.find(|open| is(&open.publish, message)) {
            Some(owner) => {
                owner.returned = true;
                self.owed += 1;
            }
            None => tracing::error!("the broker returned a message that was not published"),
        }
    }
}

struct Candidate<P> {
    number: u64,
    publish: P,
    has_message: bool,
    returned: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    /// What the broker and lapin do with publishes, of which some are returned.
    #[derive(Default)]
    struct Model {
        returned: BTreeMap<u64, bool>,
        /// Not yet seen by the broker.
        sent: VecDeque<u64>,
        /// Seen and not yet confirmed.
        unconfirmed: Vec<u64>,
        row: VecDeque<u64>,
        resolved: Vec<Confirmed<u64>>,
    }

    impl Model {
        /// The broker sees the next publish, and returns it if nobody takes it.
        fn see(&mut self) {
            if let Some(number) = self.sent.pop_front() {
                if self.returned[&number] {
                    self.row.push_back(number);
                }
                self.unconfirmed.push(number);
            }
        }

        fn confirm(&mut self, at: usize) {
            let number = self.unconfirmed.remove(at);
            self.resolved.push(Confirmed { number, message: self.row.pop_front() });
        }
    }

    #[derive(Debug, Clone)]
    enum Happens {
        Publish {
            returned: bool,
        },
        See,
        ConfirmOne(prop::sample::Index),
        /// As one that covers several does, in no order.
        ConfirmSome(usize, Vec<prop::sample::Index>),
        Read,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => any::<bool>().prop_map(|returned| Happens::Publish { returned }),
            4 => Just(Happens::See),
            2 => any::<prop::sample::Index>().prop_map(Happens::ConfirmOne),
            1 => (0_usize..6, prop::collection::vec(any::<prop::sample::Index>(), 6))
                .prop_map(|(count, order)| Happens::ConfirmSome(count, order)),
            3 => Just(Happens::Read),
        ]
    }

    fn read(model: &mut Model, confirms: &mut Confirms<u64>, told: &mut BTreeMap<u64, bool>) {
        let batch = std::mem::take(&mut model.resolved);
        for Decided { number, returned } in confirms.take(batch, |publish, of| publish == of) {
            assert_eq!(told.insert(number, returned), None, "{number} is told once");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn each_publish_is_told_its_own_fate_in_whatever_order_things_happen(
            story in prop::collection::vec(happens(), 0..120),
        ) {
            let (mut model, mut confirms) = (Model::default(), Confirms::new());
            let mut told = BTreeMap::new();
            for event in story {
                match event {
                    Happens::Publish { returned } => {
                        let number = confirms.last + 1;
                        prop_assert_eq!(confirms.add(number), number);
                        model.returned.insert(number, returned);
                        model.sent.push_back(number);
                    }
                    Happens::See => model.see(),
                    Happens::ConfirmOne(which) if !model.unconfirmed.is_empty() => {
                        model.confirm(which.index(model.unconfirmed.len()));
                    }
                    Happens::ConfirmSome(count, order) => {
                        for which in order.iter().take(count.min(model.unconfirmed.len())) {
                            model.confirm(which.index(model.unconfirmed.len()));
                        }
                    }
                    Happens::ConfirmOne(_) => {}
                    Happens::Read => read(&mut model, &mut confirms, &mut told),
                }
                for (number, returned) in &told {
                    prop_assert_eq!(*returned, model.returned[number], "publish {}", number);
                }
            }
            // In the end everything is confirmed, and then everything is told.
            while !model.sent.is_empty() {
                model.see();
            }
            while !model.unconfirmed.is_empty() {
                model.confirm(0);
            }
            read(&mut model, &mut confirms, &mut told);
            prop_assert_eq!(told, model.returned);
        }
    }

    #[test]
    fn of_two_messages_that_cannot_be_told_apart_each_is_returned_once() {
        let mut confirms = Confirms::new();
        let numbers = [confirms.add("same"), confirms.add("same"), confirms.add("other")];
        let confirmed = |number, message| Confirmed { number, message };
        let batch = vec![
            confirmed(numbers[2], Some("same")),
            confirmed(numbers[0], None),
            confirmed(numbers[1], None),
        ];
        let decided = confirms.take(batch, |publish, message| publish == message);
        assert_eq!(decided.iter().filter(|decided| decided.returned).count(), 1);
        assert_eq!(decided.len(), 3);
    }
}
