//! Claims in a table that has been in use for long.

use std::time::Duration;

use futures_util::StreamExt;
use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{Permit, PostgresStore, Store};
use sqlx::PgPool;
use tokio::sync::Mutex;

use super::goal;
use crate::Result;
use crate::contest::{Case, Contender};
use crate::figures::{RATE, Sample, Used};
use crate::goal::{Bound, Compare};
use crate::servers::Servers;

const CLAIMS: u64 = 50_000;
/// Whatever the size of the run: it is about them.
const ROWS: i64 = 10_000_000;
const AT_ONCE: usize = 256;

const EMPTY: &str = "mmate, an empty table";
const FULL: &str = "mmate, ten million records";

pub(crate) fn case() -> Case {
    Case {
        name: "P11",
        curve: None,
        title: "claims and completions in PostgreSQL",
        contenders: vec![Contender::new(EMPTY, empty), Contender::new(FULL, full)],
        goals: vec![goal(
            "P11",
            "with ten million records beside none",
            FULL,
            &[EMPTY],
            RATE,
            Compare::Ratio,
            Bound::AtLeast(0.9),
        )],
    }
}

async fn empty(servers: Servers) -> Result<Sample> {
    let pool = PgPool::connect(servers.postgres()?).await?;
    sqlx::query("DROP TABLE IF EXISTS bench_records_none").execute(&pool).await?;
    let store = PostgresStore::connect(servers.postgres()?).await?.table("bench_records_none")?;
    store.migrate().await?;
    pool.close().await;
    claims(&servers, &store).await
}

/// What is claimed in one round stays for the next.
async fn full(servers: Servers) -> Result<Sample> {
    static FILLED: Mutex<bool> = Mutex::const_new(false);
    let store = PostgresStore::connect(servers.postgres()?).await?.table("bench_records_many")?;
    let mut filled = FILLED.lock().await;
    if !*filled {
        fill(&servers, &store).await?;
        *filled = true;
    }
    claims(&servers, &store).await
}

/// Ids lie anywhere in the index, as they do when they are random.
async fn fill(servers: &Servers, store: &PostgresStore) -> Result<()> {
    let pool = PgPool::connect(servers.postgres()?).await?;
    sqlx::query("DROP TABLE IF EXISTS bench_records_many").execute(&pool).await?;
    store.migrate().await?;
    eprintln!("  filling a table with {ROWS} records");
    sqlx::query(
        "INSERT INTO bench_records_many (scope, message_id, status, processed_at, service_name, subscription, \
         instance, message_type, fingerprint, owner, fence, attempt, taken_over, claimed_at, expires_at) \
         SELECT 'bench', md5(n::text), 'done', now(), 'bench', 'bench', 'bench-1', 'OrderCreated', \
         decode(md5(n::text), 'hex'), decode(md5(n::text), 'hex'), n, 1, false, \
         extract(epoch FROM now()) * 1000 - n, extract(epoch FROM now()) * 1000 + 86400000 + n \
         FROM generate_series(1, $1) AS n ORDER BY md5(n::text)",
    )
    .bind(ROWS)
    .execute(&pool)
    .await?;
    sqlx::query("VACUUM ANALYZE bench_records_many").execute(&pool).await?;
    sqlx::query("CHECKPOINT").execute(&pool).await?;
    pool.close().await;
    Ok(())
}

async fn claims(servers: &Servers, store: &PostgresStore) -> Result<Sample> {
    let claims = servers.messages(CLAIMS).max(5_000);
    let run = super::fresh();
    let begin = Used::now();
    let mut done = futures_util::stream::iter(0..claims)
        .map(|number| one(store, format!("{:016x}-{run}", spread(number))))
        .buffer_unordered(AT_ONCE);
    while let Some(done) = done.next().await {
        done?;
    }
    Ok(Used::now().since(begin, claims))
}

/// Numbers that lie anywhere, each once.
fn spread(number: u64) -> u64 {
    number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

async fn one(store: &PostgresStore, id: String) -> Result<()> {
    let key = RecordKey::new("bench", id)?;
    let request = ClaimRequest::new(key, Claimant::default(), Duration::from_secs(60));
    let Claim::Granted(grant) = store.claim(&request).await? else {
        return Err("a claim was not granted".into());
    };
    store.complete(&Permit::new(&request, grant), None).await?;
    Ok(())
}
