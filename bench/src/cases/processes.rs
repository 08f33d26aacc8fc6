//! Several processes that share a queue.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use mmate_amqp::Amqp;
use mmate_core::transport::Declare;
use mmate_core::{HandlerError, Json, Service, Subscription};
use tokio::process::{Child, Command};

use super::goal;
use crate::Result;
use crate::contest::{Case, Contender};
use crate::figures::{RATE, Sample};
use crate::goal::{Bound, Compare};
use crate::message::Order;
use crate::queue::Queue;
use crate::servers::Servers;

/// For each process.
const MESSAGES: u64 = 2_000;
/// How long the handler waits, for a call elsewhere, say.
const WAIT: Duration = Duration::from_millis(2);
const PREFETCH: u16 = 20;

const ONE: &str = "mmate, 1 process";
const FOUR: &str = "mmate, 4 processes";

pub(crate) fn case() -> Case {
    Case {
        name: "P14",
        curve: None,
        title: "processes that share a queue, with a handler that waits for 2 ms, one message at a time",
        contenders: vec![
            Contender::new(ONE, |servers| processes(servers, 1)),
            Contender::new(FOUR, |servers| processes(servers, 4)),
        ],
        goals: vec![goal(
            "P14",
            "four processes beside one",
            FOUR,
            &[ONE],
            RATE,
            Compare::Ratio,
            Bound::AtLeast(3.8),
        )],
    }
}

/// What one of the processes does: consumes until it is killed.
pub(crate) async fn consume(amqp: &str, queue: &str) -> Result<()> {
    let subscription = Subscription::shared(queue)
        .declare(Declare::LeaveAlone)
        .prefetch(PREFETCH.try_into()?)
        .concurrency(1)
        .handler(wait);
    Service::new("bench").subscribe(subscription).run(Amqp::new(amqp)).await?;
    Ok(())
}

async fn wait(Json(order): Json<Order>) -> Result<(), HandlerError> {
    std::hint::black_box(order);
    tokio::time::sleep(WAIT).await;
    Ok(())
}

async fn processes(servers: Servers, count: u32) -> Result<Sample> {
    let messages = servers.messages(MESSAGES) * u64::from(count);
    let queue = Queue::empty(servers.amqp()?).await?;
    let children: Vec<_> =
        (0..count).map(|_| child(servers.amqp()?, &queue.name)).collect::<Result<_>>()?;
    until(&queue, |_, consumers| consumers == count).await?;
    queue.fill(&queue.name, messages).await?;
    // Not from the first message to the last: at the ends not all have work.
    let begin = until(&queue, |ready, _| u64::from(ready) < messages * 9 / 10).await?;
    let end = until(&queue, |ready, _| u64::from(ready) < messages / 10).await?;
    until(&queue, |ready, _| ready == 0).await?;
    drop(children);
    let channel = queue.connection.create_channel().await?;
    let name = queue.name.as_str();
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
    queue.connection.close(200, "done".into()).await?;
    let rate = f64::from(begin.0 - end.0) / (end.1 - begin.1).as_secs_f64();
    Ok(Sample::default().with(RATE, rate))
}

/// It is killed when it is dropped.
fn child(amqp: &str, queue: &str) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--consume", queue, "--amqp", amqp])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// How many messages are ready, and when that was seen first, once it holds for them and the consumers.
async fn until(queue: &Queue, holds: impl Fn(u32, u32) -> bool) -> Result<(u32, Instant)> {
    let channel = queue.connection.create_channel().await?;
    let begin = Instant::now();
    loop {
        let look = QueueDeclareOptions::default().passive();
        let name = queue.name.as_str();
        let declared = channel.queue_declare(name.into(), look, FieldTable::default()).await?;
        let (ready, now) = (declared.message_count(), Instant::now());
        if holds(ready, declared.consumer_count()) {
            channel.close(200, "done".into()).await?;
            return Ok((ready, now));
        }
        if begin.elapsed() > Duration::from_secs(120) {
            return Err(format!("{ready} messages stay in {name}").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
