//! Messages that share a commit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_core::{Envelope, HandlerError, MessageId, Outcome};
use mmate_idempotency::{GroupCommit, MissingId};

use crate::bench::{Bench, act, counts_when, ended, just_the_effect};

/// A group of exactly so many.
fn exactly(messages: usize) -> GroupCommit {
    GroupCommit::up_to(messages).in_flight(1).linger(Duration::from_secs(1))
}

/// S27, S50
#[tokio::test]
async fn messages_that_share_a_commit_are_acknowledged_after_it() {
    let bench = Bench::new().await;
    let running = bench.start(exactly(8), just_the_effect()).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    {
        let (seen, broker, queue) = (Arc::clone(&seen), bench.broker.clone(), bench.queue());
        let stats = running.stats().clone();
        bench.hooks.before_each_commit(move || {
            let unacked = broker.inner().queue(&queue).unwrap().unacked;
            seen.lock().unwrap().push((unacked, stats.total().succeeded));
        });
    }
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    bench.publish(running.publisher(), &ids).await;
    counts_when(&[&running], |counts| counts.succeeded == 8).await;
    assert_eq!(*seen.lock().unwrap(), [(8, 0)], "one commit, and no acknowledgement before it");
    assert_eq!(bench.effects().await, ids, "in the order of the messages");
    assert_eq!(*bench.runs.lock().unwrap(), ids, "each ran once");
    assert_eq!(bench.records().await, ids);
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

/// What comes while a commit is under way is the next group; alone, a message waits for nobody.
#[tokio::test]
async fn a_group_forms_while_the_previous_one_is_under_way() {
    let bench = Bench::new().await;
    let running = bench.start(GroupCommit::default(), just_the_effect()).await;
    let commits = Arc::new(AtomicUsize::new(0));
    {
        let (commits, stats) = (Arc::clone(&commits), running.stats().clone());
        bench.hooks.before_each_commit(move || {
            // The first one takes until all others are here.
            let first = commits.fetch_add(1, Ordering::SeqCst) == 0;
            let began = Instant::now();
            while first && stats.total().in_flight < 11 && began.elapsed().as_secs() < 30 {
                std::thread::yield_now();
            }
        });
    }
    bench.publish(running.publisher(), &["first"]).await;
    let others: Vec<_> = (0..10).map(|n| format!("{n}")).collect();
    let others: Vec<_> = others.iter().map(String::as_str).collect();
    while commits.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    bench.publish(running.publisher(), &others).await;
    counts_when(&[&running], |counts| counts.succeeded == 11).await;
    assert_eq!(commits.load(Ordering::SeqCst), 2);
    running.stop().await.unwrap();
}

/// S42 in small: no linger, so no timer between a message and its commit.
#[tokio::test]
async fn a_message_alone_does_not_wait_for_others() {
    let bench = Bench::new().await;
    let running = bench.start(GroupCommit::default(), just_the_effect()).await;
    let began = Instant::now();
    for n in 1..=20 {
        bench.publish(running.publisher(), &[&format!("{n}")]).await;
        counts_when(&[&running], |counts| counts.succeeded == n).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "20 messages one after the other took {took:?}");
    running.stop().await.unwrap();
}

/// S26: copies of what was done before are settled on their own, and the copy of one in the group
/// after the group's commit.
#[tokio::test]
async fn a_group_with_duplicates_handles_the_others_and_settles_each_on_its_own() {
    let bench = Bench::new().await;
    let running = bench.start(exactly(2), just_the_effect()).await;
    bench.publish(running.publisher(), &["a", "b"]).await;
    counts_when(&[&running], |counts| counts.succeeded == 2).await;
    running.stop().await.unwrap();

    let running = bench.start(exactly(6), just_the_effect()).await;
    let unacked = Arc::new(Mutex::new(Vec::new()));
    {
        let (unacked, broker, queue) = (Arc::clone(&unacked), bench.broker.clone(), bench.queue());
        bench.hooks.before_each_commit(move || {
            unacked.lock().unwrap().push(broker.inner().queue(&queue).unwrap().unacked);
        });
    }
    bench.publish(running.publisher(), &["a", "c", "d", "c", "b", "e"]).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 6).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (3, 3));
    assert_eq!((counts.retried, counts.deferred, counts.dead_lettered), (0, 0, 0));
    assert_eq!(bench.effects().await, ["a", "b", "c", "d", "e"]);
    assert_eq!(bench.records().await, ["a", "b", "c", "d", "e"]);
    let unacked = unacked.lock().unwrap().clone();
    assert_eq!(unacked.len(), 1, "one commit of all that ran");
    assert!(unacked[0] >= 4, "c, its copy, d and e are not acknowledged before: {unacked:?}");
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

/// S33, in a group.
#[tokio::test]
async fn a_conflict_leaves_its_neighbours_alone() {
    let bench = Bench::new().await;
    let running = bench.start(exactly(1), just_the_effect()).await;
    bench.publish(running.publisher(), &["a"]).await;
    counts_when(&[&running], |counts| counts.succeeded == 1).await;
    running.stop().await.unwrap();
    let running = bench.start(exactly(3), just_the_effect()).await;
    let other =
        mmate_core::Outgoing::event(format!("{}.made", bench.service), "Thing", "another content");
    bench.publish(running.publisher(), &["b"]).await;
    running.publisher().publish(other.id_text("a")).await.unwrap();
    bench.publish(running.publisher(), &["c"]).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.succeeded, counts.conflicts), (2, 1));
    assert_eq!(bench.effects().await, ["a", "b", "c"]);
    running.stop().await.unwrap();
}

/// S32: what runs without protection shares the transaction, too.
#[tokio::test]
async fn messages_without_a_key_are_in_groups_as_well() {
    let bench = Bench::new().await;
    let strategy = bench.strategy(exactly(2)).missing_id(MissingId::Unprotected);
    let strategy = strategy.key(mmate_idempotency::Key::header("order"));
    let subscription =
        bench.builder().idempotent(strategy).handler(bench.handler(just_the_effect()));
    let running = bench.start_with(subscription, Duration::from_secs(5)).await;
    let keyed = bench.message("a").header("order", "1");
    running.publisher().publish(keyed).await.unwrap();
    bench.publish(running.publisher(), &["b"]).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.unprotected), (1, 1));
    assert_eq!(bench.effects().await, ["a", "b"]);
    assert_eq!(bench.records().await, ["1"]);
    running.stop().await.unwrap();
}

/// S28: a second run publishes the same ids again, so that its messages are copies.
#[tokio::test]
async fn what_a_handler_publishes_has_the_same_ids_in_both_runs() {
    let bench = Bench::new().await;
    let published: Arc<Mutex<Vec<(String, MessageId)>>> = Arc::default();
    let handler = {
        let published = Arc::clone(&published);
        move |meta: mmate_core::Meta,
              publisher: mmate_core::Publisher,
              _tx: mmate_idempotency::Tx<sqlx::Sqlite>| {
            let published = Arc::clone(&published);
            async move {
                let id = meta.id.unwrap().to_string();
                for _ in 0..2 {
                    let event = mmate_core::Outgoing::event("elsewhere", "Told", &id);
                    let told = publisher.publish(event.allow_unroutable()).await.unwrap();
                    published.lock().unwrap().push((id.clone(), told));
                }
                let told = published.lock().unwrap().iter().filter(|(by, _)| *by == id).count();
                let fails = id == "b" && told == 2;
                if fails { Err(HandlerError::retryable("not in company")) } else { Ok(()) }
            }
        }
    };
    let subscription = bench.builder().idempotent(bench.strategy(exactly(2))).handler(handler);
    let running = bench.start_with(subscription, Duration::from_secs(5)).await;
    bench.publish(running.publisher(), &["a", "b"]).await;
    let counts = counts_when(&[&running], |counts| counts.succeeded == 2).await;
    assert_eq!(counts.retried, 0, "the second run is within the same attempt");
    let published = published.lock().unwrap().clone();
    let of = |id: &str| -> Vec<_> {
        published.iter().filter(|(by, _)| by == id).map(|(_, told)| told.clone()).collect()
    };
    for id in ["a", "b"] {
        let told = of(id);
        assert_eq!(told.len(), 4, "it ran twice");
        assert_eq!(told[..2], told[2..]);
        assert_ne!(told[0], told[1]);
    }
    running.stop().await.unwrap();
}

/// S49: a group that lingers is finished by the drain, and its messages are acknowledged.
#[tokio::test]
async fn a_drain_finishes_the_group_that_forms() {
    let bench = Bench::new().await;
    let options = GroupCommit::up_to(100).linger(Duration::from_millis(300));
    let running = bench.start(options, just_the_effect()).await;
    bench.publish(running.publisher(), &["a", "b", "c"]).await;
    counts_when(&[&running], |counts| counts.in_flight == 3).await;
    let stats = running.stats().clone();
    running.stop().await.unwrap();
    let counts = stats.total();
    assert_eq!((counts.succeeded, counts.deferred, counts.in_flight), (3, 0, 0));
    assert_eq!(bench.effects().await, ["a", "b", "c"]);
    let queue = bench.broker.inner().queue(&bench.queue()).unwrap();
    assert_eq!((queue.ready, queue.unacked), (0, 0));
}

/// A reply goes out after the group's commit.
#[tokio::test]
async fn a_reply_is_sent_after_the_commit_of_the_group() {
    use mmate_core::transport::QueuePlan;
    use mmate_core::{Reply, Transport};
    let bench = Bench::new().await;
    let replies = QueuePlan::for_replies("asking.replies.1", Duration::from_secs(60));
    let asking = bench.broker.connect("asking").await.unwrap();
    asking.declare(&replies).await.unwrap();
    let handler = async |_: mmate_idempotency::Tx<sqlx::Sqlite>| Ok::<_, HandlerError>(Reply(7));
    let subscription = bench.builder().idempotent(bench.strategy(exactly(2))).handler(handler);
    let running = bench.start_with(subscription, Duration::from_secs(5)).await;
    let sent_before = Arc::new(AtomicUsize::new(0));
    {
        let (sent_before, broker) = (Arc::clone(&sent_before), bench.broker.clone());
        bench.hooks.before_each_commit(move || {
            let sent = broker.inner().messages("asking.replies.1").len();
            sent_before.fetch_add(sent, Ordering::SeqCst);
        });
    }
    for id in ["a", "b"] {
        let request = bench.message(id).reply_to(&replies.name);
        running.publisher().publish(request).await.unwrap();
    }
    counts_when(&[&running], |counts| counts.replied == 2).await;
    assert_eq!(sent_before.load(Ordering::SeqCst), 0);
    for reply in bench.broker.inner().messages(&replies.name) {
        let envelope = Envelope::from_json(reply.body).unwrap();
        assert_eq!(envelope.payload::<u64>().unwrap(), 7);
    }
    running.stop().await.unwrap();
}

/// A pool smaller than the number of groups is enough.
#[tokio::test]
async fn one_connection_serves_many_messages() {
    let bench = Bench::new().await;
    let pool = crate::bench::pool_of(bench.folder.path(), 1, &bench.hooks).await;
    let strategy = mmate_idempotency::Transactional::new(pool).group_commit(GroupCommit::default());
    let slow = act(async |_, _| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(Outcome::Done)
    });
    let subscription = bench.builder().idempotent(strategy).handler(bench.handler(slow));
    let running = bench.start_with(subscription, Duration::from_secs(5)).await;
    for n in 0..100 {
        bench.publish(running.publisher(), &[&format!("{n}")]).await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 100).await;
    assert_eq!((counts.succeeded, counts.retried, counts.deferred), (100, 0, 0));
    running.stop().await.unwrap();
}
