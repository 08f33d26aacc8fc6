//! A cluster of three nodes that loses one.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::{HandlerError, Meta, Outgoing, PublishError, Service, Subscription};
use mmate_test_support::{RabbitMqCluster, unique};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was handled, and when the last time.
#[derive(Default)]
struct Handled {
    ids: HashSet<String>,
    last: Option<Instant>,
    longest_gap: Duration,
}

/// F16, where other nodes are left: with a quorum queue the loss of one is no more than a delay.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_goes_on_when_the_leader_of_its_queue_is_killed_under_load() {
    let mut cluster =
        tokio::task::spawn_blocking(|| RabbitMqCluster::start(3).unwrap()).await.unwrap();
    let name = unique("orders");
    let queue = format!("{name}.all");
    let handled = Arc::new(Mutex::new(Handled::default()));
    let handler = {
        let handled = Arc::clone(&handled);
        move |meta: Meta| {
            let handled = Arc::clone(&handled);
            async move {
                let mut handled = handled.lock().unwrap();
                let now = Instant::now();
                let gap = handled.last.replace(now).map(|last| now - last);
                handled.longest_gap = handled.longest_gap.max(gap.unwrap_or_default());
                handled.ids.insert(meta.id.unwrap().to_string());
                Ok::<_, HandlerError>(())
            }
        }
    };
    let broker = Amqp::new(cluster.url()).publish_timeout(PATIENCE);
    let service = Service::new(name.as_str())
        .subscribe(Subscription::per_service("all", [format!("{name}.#")]).handler(handler))
        .start(broker)
        .await
        .unwrap();

    let leader = |cluster: &RabbitMqCluster, asked: usize| {
        let columns = ["list_queues", "name", "leader", "members"];
        let listed = tokio::task::block_in_place(|| cluster.nodes()[asked].ctl(&columns).unwrap());
        let line = listed.lines().find(|line| line.starts_with(&queue)).unwrap().to_owned();
        // The queue is on all nodes.
        for node in cluster.nodes() {
            assert!(line.split('\t').nth(2).unwrap().contains(node.name()), "{line}");
        }
        let leader = line.split('\t').nth(1).unwrap().to_owned();
        cluster.nodes().iter().position(|node| node.name() == leader).unwrap()
    };

    let publishing = Arc::new(AtomicBool::new(true));
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let (publisher, going_on) = (service.publisher().clone(), Arc::clone(&publishing));
            let topic = format!("{name}.created");
            tokio::spawn(async move {
                let mut confirmed = Vec::new();
                while going_on.load(Ordering::SeqCst) {
                    let message = Outgoing::event(topic.as_str(), "OrderCreated", "");
                    match publisher.publish(message).await {
                        Ok(id) => confirmed.push(id.to_string()),
                        Err(PublishError::Refused { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                confirmed
            })
        })
        .collect();

    let grown = async |by: usize| {
        let count = || handled.lock().unwrap().ids.len();
        let (begin, before) = (Instant::now(), count());
        while count() < before + by {
            assert!(begin.elapsed() < PATIENCE, "nothing is handled any more");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begin.elapsed()
    };
    // At first it is the node that the service declared the queue on, and so consumes from.
    let rounds = if std::env::var_os("MMATE_TEST_LONG").is_some() { 6 } else { 1 };
    for round in 1..=rounds {
        grown(500).await;
        let killed = leader(&cluster, 0);
        handled.lock().unwrap().longest_gap = Duration::ZERO;
        cluster.node(killed).kill();
        let whole = grown(500).await;
        let gap = handled.lock().unwrap().longest_gap;
        println!(
            "round {round}: node {} led and was killed; nothing was handled for {gap:?}, \
             and 500 more were after {whole:?}",
            killed + 1
        );
        assert_ne!(leader(&cluster, (killed + 1) % 3), killed);
        cluster = tokio::task::spawn_blocking(move || {
            cluster.node(killed).start_again().unwrap();
            cluster
        })
        .await
        .unwrap();
    }
    publishing.store(false, Ordering::SeqCst);
    let mut confirmed = Vec::new();
    for publisher in publishers {
        confirmed.extend(publisher.await.unwrap());
    }
    let begin = Instant::now();
    let missing = || {
        let handled = handled.lock().unwrap();
        confirmed.iter().filter(|id| !handled.ids.contains(*id)).count()
    };
    while missing() > 0 {
        assert!(begin.elapsed() < PATIENCE, "{} of {} were lost", missing(), confirmed.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{} were confirmed, and all of them handled", confirmed.len());
    service.stop().await.unwrap();
}
