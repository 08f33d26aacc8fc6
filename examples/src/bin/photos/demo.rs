//! Everything in one process: two servers, senders that repeat themselves, and recipients.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mmate_amqp::Amqp;
use mmate_core::{InProcess, MessageId, Transport, shutdown_signal};
use mmate_examples::monitor;
use mmate_examples::program::{ANY_PORT, Failure, listen};
use mmate_examples::sign_in::{Name, Signer};
use mmate_examples::socket_client::{Received, SocketClient};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::options::{DemoOptions, ServerOptions};
use crate::server::{Server, open_store};

/// Who sends, and who is sent.
const SENDERS: [&str; 3] = ["anna", "bert", "cleo"];
const RECIPIENTS: [&str; 2] = ["dora", "emil"];

/// How long may pass without a delivery before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// A photo of one dot, and what makes it another one.
const GIF: &[u8] =
    b"GIF89a\x01\x00\x01\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x00;";

/// Whether each photo was stored once and delivered once.
pub(crate) async fn run(options: DemoOptions) -> Result<bool, Failure> {
    tokio::select! {
        is_clean = show(options) => is_clean,
        () = shutdown_signal() => Err("interrupted".into()),
    }
}

async fn show(options: DemoOptions) -> Result<bool, Failure> {
    let metrics = monitor::collect()?;
    let folder = TempDir::new()?;
    let file = || format!("sqlite:{}", folder.path().join("photos.db").display());
    let server = ServerOptions {
        listen: ANY_PORT,
        secret: MessageId::generate().to_string(),
        folder: folder.path().join("photos"),
        database: options.database.clone().unwrap_or_else(file),
        store: options.store.clone(),
        broker: options.broker.clone(),
        work: options.work.clone(),
    };
    let broker: Arc<dyn Transport> = match &options.broker {
        Some(url) => Arc::new(Amqp::new(url)),
        None => Arc::new(InProcess::new()),
    };
    let store = open_store(&server.store, &server.work).await?;
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
    for _ in 0..2 {
        let http = listen(server.listen).await?;
        addresses.push(http.local_addr()?.to_string());
        let opened = Server::with(&server, Arc::clone(&store), Some(Arc::clone(&broker))).await?;
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(monitor::serve(http, opened.pages(metrics.clone()), stopped));
        servers.push(opened);
    }

    let signer = Signer::new(&server.secret);
    let mut recipients = Vec::new();
    // A recipient may have photos from before, where the database was there before.
    let run = fastrand::u32(..);
    for (number, name) in RECIPIENTS.into_iter().enumerate() {
        let name = format!("{name}-{run:08x}");
        let (client, received) = connect(&signer, &name, &addresses[number % 2]).await?;
        recipients.push((name, client, received));
    }
    let names = recipients.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>();
    let sent = send(&signer, &addresses, &names, options.photos).await?;
    println!("sent {sent} times {} photos\n", options.photos);
    let (delivered, doubled) = receive(recipients, options.photos).await;

    let counts = servers.iter().map(|server| server.tally().now()).collect::<Vec<_>>();
    let stored = counts.iter().map(|counts| counts.stored).sum::<u64>();
    let cached = counts.iter().map(|counts| counts.cached).sum::<u64>();
    let failed = counts.iter().map(|counts| counts.failed).sum::<u64>();
    let files = std::fs::read_dir(&server.folder)?.count();
    println!("answered as stored {stored:>7}");
    println!("answered as cached {cached:>7}");
    println!("failed             {failed:>7}");
    println!("files              {files:>7}");
    println!("delivered          {delivered:>7}");
    println!("delivered twice    {doubled:>7}");
    stop.cancel();
    for server in servers {
        server.close().await?;
    }
    tasks.abort_all();
    let photos = u64::from(options.photos);
    let is_complete = [stored, delivered, files as u64].iter().all(|count| *count == photos);
    Ok(is_complete && cached == sent - photos && failed == 0 && doubled == 0)
}

async fn connect(
    signer: &Signer,
    name: &str,
    server: &str,
) -> Result<(SocketClient, UnboundedReceiver<Received>), Failure> {
    let token = signer.token(&Name::try_from(name.to_owned())?);
    SocketClient::connect(server, &json!({"token": token})).await
}

/// Sends each photo three times: at the same time to both servers, and then once more. Returns how often in all.
async fn send(
    signer: &Signer,
    servers: &[String],
    recipients: &[String],
    photos: u32,
) -> Result<u64, Failure> {
    let mut sending = JoinSet::new();
    for (part, name) in SENDERS.into_iter().enumerate() {
        let (here, _here) = connect(signer, name, &servers[0]).await?;
        let (there, _there) = connect(signer, name, &servers[1]).await?;
        let recipients = recipients.to_owned();
        sending.spawn(async move {
            let mut sent = 0;
            for number in (0..photos).skip(part).step_by(SENDERS.len()) {
                let content = [GIF, &number.to_be_bytes()].concat();
                let photo = json!({
                    "messageId": MessageId::generate(),
                    "recipient": recipients[number as usize % recipients.len()],
                    "content": BASE64_STANDARD.encode(content),
                });
                let event = if number % 2 == 0 { "send_photo" } else { "send_moment" };
                let both = tokio::join!(here.ask(event, &photo), there.ask(event, &photo));
                let again = there.ask(event, &photo).await?;
                let answers = [both.0?, both.1?, again];
                sent += answers.len() as u64;
                let urls = answers.iter().map(|answer| &answer["url"]);
                if urls.clone().any(|url| *url != answers[0]["url"] || *url == Value::Null) {
                    return Err(format!("not answered alike: {answers:?}").into());
                }
            }
            Ok::<_, Failure>(sent)
        });
    }
    let mut sent = 0;
    while let Some(part) = sending.join_next().await {
        sent += part??;
    }
    Ok(sent)
}

/// How many different photos came, and how many came again.
async fn receive(
    recipients: Vec<(String, SocketClient, UnboundedReceiver<Received>)>,
    photos: u32,
) -> (u64, u64) {
    let (mut seen, mut doubled) = (HashMap::<String, u32>::new(), 0);
    let (client, mut received): (Vec<_>, Vec<_>) =
        recipients.into_iter().map(|(_, client, received)| (client, received)).unzip();
    let mut last = Instant::now();
    let mut complete_since = None;
    // A while longer than it takes, for what would come twice.
    while last.elapsed() < PATIENCE
        && complete_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(3))
    {
        for received in &mut received {
            while let Ok(Received { data, .. }) = received.try_recv() {
                last = Instant::now();
                let times = seen.entry(data["url"].to_string()).or_default();
                *times += 1;
                doubled += u64::from(*times > 1);
            }
        }
        if seen.len() as u64 >= u64::from(photos) {
            complete_since.get_or_insert_with(Instant::now);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(client);
    (seen.len() as u64, doubled)
}
