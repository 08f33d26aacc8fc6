//! Other crates, each used as its own documentation recommends, in a program of its own.

use std::process::Stdio;
use std::time::Duration;

use mmate_core::SubscriptionBuilder;
use tokio::process::Command;
use tokio::time::timeout;

use super::{PREFETCH, consume};
use crate::contest::{Case, Contender};
use crate::figures::{CPU, RATE, Sample};
use crate::queue::Queue;
use crate::servers::Servers;
use crate::{Result, message, service};

const MESSAGES: u64 = 100_000;
/// What the program consumes.
const QUEUE: &str = "bench.peers";
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn case() -> Case {
    Case {
        name: "peers",
        title: "other crates with a typed handler that acknowledges each message, prefetch 1,000",
        curve: None,
        contenders: vec![
            Contender::new("mmate", |servers| consume::mmate(servers, PREFETCH)),
            Contender::new("mmate, one message at a time", one_at_a_time),
            Contender::new("lapin, acks written, typed", |servers| {
                consume::typed(servers, PREFETCH)
            }),
            Contender::new("amqprs", |servers| peer(servers, "amqprs")),
            Contender::new("kanin", |servers| peer(servers, "kanin")),
            Contender::new("ruststream-lapin", |servers| peer(servers, "ruststream")),
            Contender::new("apalis-amqp", |servers| peer(servers, "apalis")),
        ],
        goals: Vec::new(),
    }
}

/// As those crates do it that have no concurrency.
async fn one_at_a_time(servers: Servers) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let finish = |s: SubscriptionBuilder| s.concurrency(1).handler(service::handle);
    service::measured(&servers, queue, messages, finish).await
}

async fn peer(servers: Servers, name: &str) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::named(servers.amqp()?, QUEUE.to_owned()).await?;
    // It has a format of its own.
    let wraps = name == "apalis";
    let message = |number| {
        let message = message::message(QUEUE, number)?;
        if wraps { wrapped(message) } else { Ok(message) }
    };
    queue.fill_with(messages, message).await?;
    let program = servers.peers()?;
    let child = Command::new(program)
        .args([name, servers.amqp()?, &messages.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("failed to start {}: {error}", program.display()))?;
    let output = timeout(LIMIT, child.wait_with_output()).await??;
    let text = String::from_utf8(output.stdout)?;
    let told = text.split_once(' ').filter(|_| output.status.success());
    let (wall, cpu) = told.ok_or_else(|| format!("{name} failed: {text}"))?;
    let (wall, cpu): (f64, f64) = (wall.trim().parse()?, cpu.trim().parse()?);
    queue.used_up().await?;
    #[expect(clippy::cast_precision_loss, reason = "a number of messages")]
    let handled = (messages - 1) as f64;
    Ok(Sample::default().with(RATE, handled / wall).with(CPU, cpu * 1e6 / handled))
}

fn wrapped<P>((properties, body): (P, Vec<u8>)) -> Result<(P, Vec<u8>)> {
    let body = String::from_utf8(body)?;
    let task = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let wrapped = format!(r#"{{"inner":{body},"task_id":"{task}","attempt":0}}"#);
    Ok((properties, wrapped.into_bytes()))
}
