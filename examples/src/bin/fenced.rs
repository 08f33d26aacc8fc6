//! A lock and its fence, to be tried with processes that are paused.
//!
//! Each process handles one message about the order `o-1` under a lock that all of them share, and
//! writes its name into the order when it is told to on its standard input. Try it in two terminals:
//!
//! ```console
//! $ fenced first            # says `inside`; now pause it with ^Z
//! $ fenced second           # takes over when the lease of the first is over; press return
//! second wrote 1
//! $ fg                      # in the first terminal; press return
//! first wrote 0             # refused: its fence is the lower one
//! ```
//!
//! With `--unfenced` the first overwrites what the second has written. A lock alone cannot prevent
//! that: the lease was over, and the paused process did not know.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use mmate_core::{BoxError, HandlerError, InProcess, Outgoing, Service, State, Subscription};
use mmate_idempotency::{Key, LockPermit, Locked, SqliteStore};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(Parser, Clone)]
#[command(about = "A lock and its fence, to be tried with processes that are paused.")]
struct Options {
    /// The name that this process writes.
    name: String,
    /// Where the locks and the orders are.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Leave the fence out of the write.
    #[arg(long)]
    unfenced: bool,
}

const LEASE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let locks = SqliteStore::open(options.folder.join("locks.db")).await?;
    let lock = Locked::by(locks, Key::header("order")).scope("orders").lease(LEASE);
    let service = Service::new("fenced")
        .state(options.clone())
        .state(orders(&options.folder).await?)
        .subscribe(
            Subscription::per_service("write", ["order.paid.*"]).middleware(lock).handler(write),
        );
    let broker = InProcess::new();
    let running = service.start(broker.clone()).await?;
    let event = Outgoing::event("order.paid.eu", "OrderPaid", &options.name);
    running.publisher().publish(event.header("order", "o-1")).await?;
    broker.idle().await;
    running.stop().await?;
    Ok(())
}

async fn write(
    State(options): State<Options>,
    State(pool): State<SqlitePool>,
    lock: LockPermit,
) -> Result<(), HandlerError> {
    println!("inside");
    // A task of its own does not end with the handler, which is cancelled when its lock is lost. So
    // this write comes late, as that of a process which was paused in the middle of it.
    tokio::spawn(async move {
        BufReader::new(tokio::io::stdin()).read_line(&mut String::new()).await?;
        let statement = match options.unfenced {
            true => "UPDATE orders SET state = ?1, last_fence = ?2 WHERE id = 'o-1'",
            false => {
                "UPDATE orders SET state = ?1, last_fence = ?2 WHERE id = 'o-1' AND last_fence < ?2"
            }
        };
        let written = sqlx::query(statement)
            .bind(&options.name)
            .bind(lock.fence_i64())
            .execute(&pool)
            .await?;
        println!("{} wrote {}", options.name, written.rows_affected());
        Ok::<(), HandlerError>(())
    })
    .await??;
    Ok(())
}

async fn orders(folder: &std::path::Path) -> Result<SqlitePool, sqlx::Error> {
    let options =
        SqliteConnectOptions::new().filename(folder.join("orders.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().connect_with(options).await?;
    for sql in [
        "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, state TEXT, last_fence INTEGER NOT NULL)",
        "INSERT INTO orders VALUES ('o-1', 'new', 0) ON CONFLICT DO NOTHING",
    ] {
        sqlx::query(sql).execute(&pool).await?;
    }
    Ok(pool)
}
