//! What may have become of a record.

use super::harness::RETENTION;
use crate::protocol::{Command, Record, Time, Verdict, step};

/// All that a record may be by now, if the store keeps to the protocol. That is more than one
/// thing, where commands were given at once and several orders explain the answers.
pub(super) struct Sequel(Vec<Option<Record>>);

impl Default for Sequel {
    fn default() -> Self {
        Self(vec![None])
    }
}

impl Sequel {
    /// Follows commands that were given at once, and their answers.
    ///
    /// # Errors
    /// When there is no order of them that gives these answers: what one of the orders would give.
    pub(super) fn follow(
        &mut self,
        pairs: &[(Command, Verdict)],
        now: Time,
    ) -> Result<(), Vec<Verdict>> {
        let mut after = Vec::new();
        let mut expected = None;
        for order in orders(pairs.len()) {
            for before in &self.0 {
                let mut record = before.clone();
                let mut says = vec![Verdict::Purged(false); pairs.len()];
                for number in &order {
                    let command = pairs[*number].0.clone();
                    (record, says[*number]) = step(record, command, now, &RETENTION);
                }
                if says.iter().zip(pairs).any(|(says, (_, got))| says != got) {
                    expected.get_or_insert(says);
                } else if !after.contains(&record) {
                    after.push(record);
                }
            }
        }
        if after.is_empty() {
            return Err(expected.unwrap_or_default());
        }
        self.0 = after;
        Ok(())
    }

    pub(super) fn purge(&mut self, now: Time) {
        for record in &mut self.0 {
            *record = step(record.take(), Command::Purge, now, &RETENTION).0;
        }
    }
}

/// All orders of so many.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                let left = (0..count).filter(|number| !order.contains(number)).collect::<Vec<_>>();
                left.into_iter().map(move |number| [order.clone(), vec![number]].concat())
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::{Claim, Grant, Owner};

    #[test]
    fn there_are_as_many_orders_as_there_should_be() {
        let counts = [0, 1, 2, 3].map(|count| orders(count).len());
        assert_eq!(counts, [1, 1, 2, 6]);
    }

    #[test]
    fn of_two_claims_at_once_either_may_be_granted_and_not_both() {
        let now = Time::from_millis(1);
        let lease = Duration::from_millis(5);
        let claim = || Command::Claim {
            owner: Owner::generate(),
            by: "s".into(),
            fingerprint: None,
            lease,
            trace: None,
        };
        let granted =
            Verdict::Claim(Claim::Granted(Grant { fence: 1024, attempt: 1, taken_over: false }));
        let busy = Verdict::Claim(Claim::Busy { remaining: lease });
        for (first, second, may_be) in [
            (granted.clone(), busy.clone(), true),
            (busy.clone(), granted.clone(), true),
            (granted.clone(), granted, false),
            (busy.clone(), busy, false),
        ] {
            let pairs = [(claim(), first), (claim(), second)];
            assert_eq!(Sequel::default().follow(&pairs, now).is_ok(), may_be);
        }
    }
}
