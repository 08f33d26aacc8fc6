//! F55: what is used up is waited for, and waiting uses up nothing.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "rabbitmq/proxy.rs"]
mod proxy;

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::message::Message;
use mmate_core::transport::{
    Connection, Destination, Publication, QueueMode, QueuePlan, Transport,
};
use mmate_test_support::{RabbitMq, unique};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::proxy::Proxy;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a process has, and must not have more and more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
struct Holdings {
    files: usize,
    threads: usize,
    tasks: usize,
}

impl Holdings {
    fn now() -> Self {
        let count = |folder: &str| fs::read_dir(folder).unwrap().count();
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        Self { files: count("/proc/self/fd"), threads: count("/proc/self/task"), tasks }
    }

    fn within(self, other: Self) -> bool {
        self.files <= other.files && self.threads <= other.threads && self.tasks <= other.tasks
    }

    /// The least that was seen over a few attempts: what one of them has in between is not held.
    async fn least() -> Self {
        let mut least = Self::now();
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let now = Self::now();
            least.files = least.files.min(now.files);
            least.threads = least.threads.min(now.threads);
            least.tasks = least.tasks.min(now.tasks);
        }
        least
    }
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn quick(url: &str) -> Amqp {
    Amqp::new(url).reconnect_backoff(Duration::from_millis(5), Duration::from_millis(20))
}

async fn publish(connection: &dyn Connection, plan: &QueuePlan) {
    let to = Destination::Queue(plan.name.clone());
    connection.publish(Publication::new(to, Message::new("any"))).await.unwrap();
}

/// One after the other: they count what the whole process holds.
#[tokio::test(flavor = "multi_thread")]
async fn connections_and_files_that_are_used_up_are_waited_for_without_a_leak() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("mmate_amqp=warn")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let server = tokio::task::spawn_blocking(|| RabbitMq::start().unwrap()).await.unwrap();
    many_refused_connections_leave_nothing_behind(&server).await;
    files_that_are_used_up_are_waited_for(&server, &log).await;
}

async fn many_refused_connections_leave_nothing_behind(server: &RabbitMq) {
    let ctl = |arguments: &[&str]| tokio::task::block_in_place(|| server.ctl(arguments).unwrap());
    let proxy = Proxy::before(&server.url()).await;
    let limit = |connections: i32| {
        let limits = format!("{{\"max-connections\": {connections}}}");
        ctl(&["set_vhost_limits", "-p", "/", &limits]);
    };

    limit(0);
    let broker = quick(&proxy.url());
    let connecting = tokio::spawn(async move { broker.connect("tests").await.unwrap() });
    until("it has settled", || proxy.accepted() >= 30).await;
    let before = Holdings::least().await;
    let attempts = proxy.accepted();
    until("many attempts were made", || proxy.accepted() >= attempts + 300).await;
    assert!(!connecting.is_finished());
    let after = Holdings::least().await;
    println!("refused at first: {before:?}, and after 300 attempts {after:?}");
    assert!(after.within(before), "{after:?} is more than {before:?}");
    limit(-1);
    let connection =
        tokio::time::timeout(PATIENCE, connecting).await.expect("there is room").unwrap();

    let plan = QueuePlan::new(unique("limited"), QueueMode::Shared);
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    publish(&*connection, &plan).await;
    limit(0);
    proxy.cut();
    let attempts = proxy.accepted();
    until("it has settled", || proxy.accepted() >= attempts + 60).await;
    let before = Holdings::least().await;
    let attempts = proxy.accepted();
    until("many attempts were made", || proxy.accepted() >= attempts + 300).await;
    let after = Holdings::least().await;
    println!("refused later: {before:?}, and after 300 attempts {after:?}");
    assert!(after.within(before), "{after:?} is more than {before:?}");
    limit(-1);
    publish(&*connection, &plan).await;
    let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("it is back");
    drop(delivery);
    connection.close().await;
}

async fn files_that_are_used_up_are_waited_for(server: &RabbitMq, log: &Log) {
    let proxy = Proxy::before(&server.url()).await;
    let connection = quick(&proxy.url()).connect("tests").await.unwrap();
    let plan = QueuePlan::new(unique("no-files"), QueueMode::Shared);
    connection.declare(&plan).await.unwrap();
    publish(&*connection, &plan).await;
    let before = Holdings::least().await;

    let usual = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..usual }).unwrap();
    let mut files = Vec::new();
    until("much failed for want of files", || {
        // What a lost connection held is used up too. One that was quicker is lost as well.
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        proxy.cut();
        log.count("Too many open files") >= 20
    })
    .await;
    drop(files);
    setrlimit(Resource::Nofile, usual).unwrap();
    publish(&*connection, &plan).await;
    // lapin's task for the heartbeat of a connection outlives it, by half of the interval at most.
    let begin = Instant::now();
    let mut after = Holdings::least().await;
    while !after.within(before) && begin.elapsed() < PATIENCE {
        after = Holdings::least().await;
    }
    println!("files used up: {before:?}, and {:?} afterwards {after:?}", begin.elapsed());
    assert!(after.within(before), "{after:?} is more than {before:?}");
    connection.close().await;
}

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn count(&self, words: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(words).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
