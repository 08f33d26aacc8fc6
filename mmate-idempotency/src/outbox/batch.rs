//! What one claim has in hand: published, key by key, and noted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mmate_core::{PublishError, error_chain};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout_at};

use super::database::{Claimed, Failed, Fates, OutboxDatabase, Rows as _};
use super::metrics::Why;
use super::parcel::unpack;
use super::sender::{Sender, millis, to_its_end};

/// How long confirmations gather before they are noted together.
const GATHER: Duration = Duration::from_millis(5);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// As much of an error as is kept.
const ERROR_BYTES: usize = 1_024;

pub(super) struct Batch<'a, DB: OutboxDatabase> {
    sender: &'a Sender<DB>,
    claim: [u8; 16],
    rows: Vec<Claimed>,
    /// When it was claimed, by the clock of this process.
    claimed: Instant,
}

/// How sending went, the worst last. What the broker does not take went well: that is noted at its
/// row.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sent {
    Well,
    /// Of some messages nobody knows whether the broker has them.
    InDoubt(String),
    /// By who owns the connection.
    Closed,
}

/// What is known of one row.
struct News {
    seq: i64,
    /// None if the broker has it.
    failed: Option<Failed>,
}

impl<'a, DB: OutboxDatabase> Batch<'a, DB> {
    pub(super) fn new(
        sender: &'a Sender<DB>,
        claim: [u8; 16],
        rows: Vec<Claimed>,
        claimed: Instant,
    ) -> Self {
        Self { sender, claim, rows, claimed }
    }

    /// Returns when all is noted; what was not sent is then anybody's again.
    pub(super) async fn send(self) -> Sent {
        let Self { sender, claim, rows, claimed } = self;
        let mut ledger = Ledger::new(rows.iter().map(|row| row.seq));
        let (tell, news) = unbounded_channel();
        let flying = async move {
            let flights = runs(rows).into_iter().map(|run| fly(sender, run, claimed, &tell));
            let mut flights: FuturesUnordered<_> = flights.collect();
            let mut worst = Sent::Well;
            // Well before others may take the rows for those of a sender that died.
            let lease = sender.settings.lease;
            let until = claimed + lease * 3 / 4;
            if Instant::now() >= until {
                // The claim's answer came too late for anything to be begun.
                return Sent::InDoubt(format!(
                    "the database took {:?} to answer",
                    claimed.elapsed()
                ));
            }
            let landing = async {
                while let Some(sent) = flights.next().await {
                    worst = std::mem::replace(&mut worst, Sent::Well).max(sent);
                }
            };
            if timeout_at(until, landing).await.is_err() {
                worst =
                    worst.max(Sent::InDoubt(format!("no confirmation within {:?}", lease * 3 / 4)));
            }
            worst
        };
        let (sent, ()) = tokio::join!(flying, ledger.keep(sender, claim, news));
        sent
    }
}

/// The rows that follow each other: those of one key, and each without one by itself.
fn runs(rows: Vec<Claimed>) -> Vec<VecDeque<Claimed>> {
    let mut runs: Vec<VecDeque<Claimed>> = Vec::new();
    let mut of_key: HashMap<String, usize> = HashMap::new();
    for row in rows {
        let at = match &row.key {
            Some(key) => *of_key.entry(key.clone()).or_insert(runs.len()),
            None => runs.len(),
        };
        if at == runs.len() {
            runs.push(VecDeque::new());
        }
        runs[at].push_back(row);
    }
    runs
}

/// Publishes rows one after another, and stops at the first that must be tried again.
async fn fly<DB: OutboxDatabase>(
    sender: &Sender<DB>,
    mut run: VecDeque<Claimed>,
    claimed: Instant,
    tell: &UnboundedSender<News>,
) -> Sent {
    while let Some(row) = run.pop_front() {
        let (seq, attempts) = (row.seq, row.attempts);
        let publication = unpack(&row.head, row.body, sender.publisher.source());
        let (why, error, pause) = match publication {
            Err(error) => (Why::Invalid, error_chain(&*error), None),
            Ok(publication) => match sender.publisher.publish_prepared(publication).await {
                Ok(()) => {
                    let age = Duration::from_millis(row.age.max(0).unsigned_abs());
                    sender.meters.sent(age + claimed.elapsed());
                    let _ = tell.send(News { seq, failed: None });
                    continue;
                }
                Err(PublishError::Closed) => return Sent::Closed,
                Err(error @ PublishError::Ambiguous { .. }) => {
                    sender.meters.failed(Why::Unknown);
                    return Sent::InDoubt(error_chain(&error));
                }
                // No repetition mends it.
                Err(error @ PublishError::Invalid(_)) => (Why::Invalid, error_chain(&error), None),
                Err(error) => {
                    let attempt = u32::try_from(attempts).unwrap_or(u32::MAX).saturating_add(1);
                    let why = match error {
                        PublishError::Unroutable { .. } => Why::Unroutable,
                        _ => Why::Refused,
                    };
                    (why, error_chain(&error), sender.settings.retry.after(attempt))
                }
            },
        };
        sender.meters.failed(why);
        if pause.is_none() {
            sender.meters.given_up.increment(1);
            tracing::error!(seq, error, "a message in the outbox is given up");
        } else {
            tracing::debug!(seq, error, "a message in the outbox was not taken by the broker");
        }
        let failed = Failed { seq, error: brief(error), pause: pause.map(millis) };
        let _ = tell.send(News { seq, failed: Some(failed) });
        if pause.is_some() {
            break;
        }
    }
    Sent::Well
}

fn brief(mut error: String) -> String {
    // No database takes a NUL in a text.
    error.retain(|c| c != '\0');
    error.truncate(error.floor_char_boundary(ERROR_BYTES));
    error
}

/// The rows of a claim in their order, each with what is to be noted.
struct Ledger {
    rows: Vec<(i64, Entry)>,
    places: HashMap<i64, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// Nothing is known.
    Out,
    Sent,
    Failed,
    /// Nothing is to be noted any more.
    Settled,
}

impl Ledger {
    fn new(seqs: impl Iterator<Item = i64>) -> Self {
        let rows: Vec<_> = seqs.map(|seq| (seq, Entry::Out)).collect();
        let places = rows.iter().enumerate().map(|(at, (seq, _))| (*seq, at)).collect();
        Self { rows, places }
    }

    /// Notes what becomes of the rows, as the news come and to the end.
    async fn keep<DB: OutboxDatabase>(
        &mut self,
        sender: &Sender<DB>,
        claim: [u8; 16],
        mut news: UnboundedReceiver<News>,
    ) {
        let mut some = Vec::new();
        while news.recv_many(&mut some, usize::MAX).await > 0 {
            if self.rows.len() > some.len() && !news.is_closed() {
                sleep(GATHER).await;
                while let Ok(more) = news.try_recv() {
                    some.push(more);
                }
            }
            let fates = self.take(some.drain(..));
            note(sender, claim, fates).await;
        }
        let released = self.ranges(Entry::Out);
        if !released.is_empty() {
            note(sender, claim, Fates { released, ..Fates::default() }).await;
        }
    }

    fn take(&mut self, news: impl Iterator<Item = News>) -> Fates {
        let mut fates = Fates::default();
        for News { seq, failed } in news {
            let entry = if failed.is_some() { Entry::Failed } else { Entry::Sent };
            if let Some(at) = self.places.get(&seq) {
                self.rows[*at].1 = entry;
            }
            fates.failed.extend(failed);
        }
        fates.sent = self.ranges(Entry::Sent);
        for (_, entry) in &mut self.rows {
            if *entry != Entry::Out {
                *entry = Entry::Settled;
            }
        }
        fates
    }

    /// The fewest ranges with all rows of one kind and none of another that the claim still has.
    fn ranges(&self, wanted: Entry) -> Vec<(i64, i64)> {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        let mut goes_on = false;
        for (seq, entry) in &self.rows {
            if *entry == wanted {
                match ranges.last_mut() {
                    Some(range) if goes_on => range.1 = *seq,
                    _ => ranges.push((*seq, *seq)),
                }
                goes_on = true;
            } else if *entry != Entry::Settled {
                goes_on = false;
            }
        }
        ranges
    }
}

/// Goes on until it is noted: what was confirmed must not be sent again if that can be avoided.
async fn note<DB: OutboxDatabase>(sender: &Sender<DB>, claim: [u8; 16], fates: Fates) {
    let mut pause = FIRST_PAUSE;
    let fates = Arc::new(fates);
    let settle = || {
        let (table, fates) = (Arc::clone(&sender.table), Arc::clone(&fates));
        to_its_end(async move { DB::Rows::settle(&table, &claim, &fates).await })
    };
    while let Err(error) = settle().await {
        sender.trouble.note("failed to note what was sent from the outbox", error_chain(&error));
        sleep(pause.mul_f64(1.0 - 0.5 * fastrand::f64())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(seq: i64) -> News {
        News { seq, failed: None }
    }

    fn failed(seq: i64) -> News {
        News { seq, failed: Some(Failed { seq, error: String::new(), pause: None }) }
    }

    fn row(seq: i64, key: Option<&str>) -> Claimed {
        let key = key.map(str::to_owned);
        Claimed { seq, key, head: String::new(), body: Vec::new(), attempts: 0, age: 0 }
    }

    #[test]
    fn rows_that_were_all_sent_are_one_range_whatever_others_are_between_them() {
        let mut ledger = Ledger::new([3, 5, 6, 90].into_iter());
        let fates = ledger.take([5, 3, 90, 6].into_iter().map(sent));
        assert_eq!(fates.sent, [(3, 90)]);
        assert_eq!(ledger.ranges(Entry::Out), []);
    }

    #[test]
    fn a_range_ends_at_a_row_that_is_still_out_and_goes_over_those_settled_before() {
        let mut ledger = Ledger::new(1..=6);
        assert_eq!(ledger.take([1, 2, 5].into_iter().map(sent)).sent, [(1, 2), (5, 5)]);
        let fates = ledger.take([sent(4), failed(6)].into_iter());
        assert_eq!((fates.sent, fates.failed.len()), (vec![(4, 4)], 1));
        assert_eq!(ledger.ranges(Entry::Out), [(3, 3)]);
        assert_eq!(ledger.take([sent(3)].into_iter()).sent, [(3, 3)]);
    }

    #[test]
    fn what_is_released_are_the_rows_without_news() {
        let mut ledger = Ledger::new([10, 20, 30, 40].into_iter());
        ledger.take([sent(20)].into_iter());
        assert_eq!(ledger.ranges(Entry::Out), [(10, 40)]);
    }

    #[test]
    fn rows_of_one_key_follow_each_other_and_others_do_not() {
        let rows = vec![row(1, Some("a")), row(2, None), row(3, Some("b")), row(4, Some("a"))];
        let mut runs: Vec<Vec<i64>> =
            runs(rows).into_iter().map(|run| run.iter().map(|row| row.seq).collect()).collect();
        runs.sort();
        assert_eq!(runs, [vec![1, 4], vec![2], vec![3]]);
    }

    #[test]
    fn an_error_is_cut_between_two_characters() {
        assert_eq!(brief("ü".repeat(600)).len(), 1_024);
        assert_eq!(brief(format!("x{}", "ü".repeat(600))).len(), 1_023);
        assert_eq!(brief("a\0b".to_owned()), "ab");
    }
}
