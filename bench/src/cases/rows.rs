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
use crate::figures::{Figure, RATE, Sample, Used};
use crate::goal::{Bound, Compare};
use crate::servers::Servers;

const CLAIMS: u64 = 50_000;
/// Whatever the size of the run: it is about them.
const ROWS: i64 = 10_000_000;
const AT_ONCE: usize = 256;

const EMPTY: &str = "mmate, ids as mmate makes them, an empty table";
const FULL: &str = "mmate, ids as mmate makes them, ten million records";
const EMPTY_AT_RANDOM: &str = "mmate, ids at random, an empty table";
const FULL_AT_RANDOM: &str = "mmate, ids at random, ten million records";

/// How much the database writes ahead, in bytes.
const LOG: Figure = "bytes of log/message";

/// What ids are like.
#[derive(Debug, Clone, Copy)]
enum Ids {
    /// Each behind all before it, as those are that mmate makes: they begin with the time.
    InOrder,
    /// Anywhere in the index.
    AtRandom,
}

pub(crate) fn case() -> Case {
    let limit = |what, full, empty| {
        goal("P11", what, full, empty, RATE, Compare::Ratio, Bound::AtLeast(0.9))
    };
    Case {
        name: "P11",
        title: "claims and completions in PostgreSQL",
        curve: None,
        contenders: vec![
            Contender::new(EMPTY, |servers| empty(servers, Ids::InOrder)),
            Contender::new(FULL, |servers| full(servers, Ids::InOrder)),
            Contender::new(EMPTY_AT_RANDOM, |servers| empty(servers, Ids::AtRandom)),
            Contender::new(FULL_AT_RANDOM, |servers| full(servers, Ids::AtRandom)),
        ],
        goals: vec![
            limit("with ten million records beside none", FULL, &[EMPTY]),
            limit("the same with ids at random", FULL_AT_RANDOM, &[EMPTY_AT_RANDOM]),
        ],
    }
}

async fn empty(servers: Servers, ids: Ids) -> Result<Sample> {
    let pool = PgPool::connect(servers.postgres()?).await?;
    sqlx::query("DROP TABLE IF EXISTS bench_records_none").execute(&pool).await?;
    let store = PostgresStore::connect(servers.postgres()?).await?.table("bench_records_none")?;
    store.migrate().await?;
    let sample = claims(&servers, &store, &pool, ids).await?;
    pool.close().await;
    Ok(sample)
}

/// What is claimed in one round stays for the next.
async fn full(servers: Servers, ids: Ids) -> Result<Sample> {
    static FILLED: Mutex<bool> = Mutex::const_new(false);
    let pool = PgPool::connect(servers.postgres()?).await?;
    let store = PostgresStore::connect(servers.postgres()?).await?.table("bench_records_many")?;
    let mut filled = FILLED.lock().await;
    if !*filled {
        fill(&pool, &store).await?;
        *filled = true;
    }
    let sample = claims(&servers, &store, &pool, ids).await?;
    pool.close().await;
    Ok(sample)
}

/// With ids at random.
async fn fill(pool: &PgPool, store: &PostgresStore) -> Result<()> {
    sqlx::query("DROP TABLE IF EXISTS bench_records_many").execute(pool).await?;
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
    .execute(pool)
    .await?;
    sqlx::query("VACUUM ANALYZE bench_records_many").execute(pool).await?;
    sqlx::query("CHECKPOINT").execute(pool).await?;
    Ok(())
}

async fn claims(
    servers: &Servers,
    store: &PostgresStore,
    pool: &PgPool,
    ids: Ids,
) -> Result<Sample> {
    let claims = servers.messages(CLAIMS).max(5_000);
    let run = super::fresh();
    let id = move |number: u64| match ids {
        Ids::InOrder => format!("z-{run:020}-{number:08}"),
        Ids::AtRandom => format!("{:016x}-{run}", spread(number)),
    };
    let log = written(pool).await?;
    let begin = Used::now();
    let mut done = futures_util::stream::iter(0..claims)
        .map(|number| one(store, id(number)))
        .buffer_unordered(AT_ONCE);
    while let Some(done) = done.next().await {
        done?;
    }
    let sample = Used::now().since(begin, claims);
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let each = (written(pool).await? - log) as f64 / claims as f64;
    Ok(sample.with(LOG, each))
}

/// How much the database has written ahead, in bytes.
async fn written(pool: &PgPool) -> Result<i64> {
    let position = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    Ok(sqlx::query_scalar(position).fetch_one(pool).await?)
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
