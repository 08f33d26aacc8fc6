//! What really happened, read from where it is.

use std::path::{Path, PathBuf};

use mmate_core::checker::{Event, Journal, What, read};
use mmate_core::message::wire;
use sqlx::Row;

use super::consumer::QUEUE;
use super::options::Name;
use super::plan::Plan;
use super::stage::Stage;
use crate::witness::Witness;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Has all events told that journals in these folders tell, those of each key in their order.
pub(super) fn tell(folders: &[PathBuf], mut tell: impl FnMut(&Event)) -> Result<(), Failure> {
    for folder in folders {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "jsonl") {
                for event in read(path)? {
                    tell(&event?);
                }
            }
        }
    }
    Ok(())
}

/// Writes beside the journals what the broker and the database know: dead letters, which are taken, and effects.
pub(super) async fn write(stage: &Stage, plan: &Plan, journals: &Path) -> Result<(), Failure> {
    let letters = Journal::append(journals.join("letters.jsonl"))?;
    for id in Witness::at(&stage.amqp).await.take_all(&wire::dead_letter_queue(QUEUE)).await {
        letters.note(&Event::now(What::Parked, id))?;
    }
    if stage.postgres.is_none() {
        return Ok(());
    }
    const ROWS: &str = "SELECT n, id, key, seq, instance, (extract(epoch FROM at) * 1000000)::bigint \
                        FROM effects WHERE n > $1 ORDER BY n LIMIT 20000";
    let effects = Journal::append(journals.join("effects.jsonl"))?;
    let (mut database, mut last) = (stage.database().await?, 0_i64);
    loop {
        let rows = sqlx::query(ROWS).bind(last).fetch_all(&mut database).await?;
        for row in &rows {
            last = row.try_get(0)?;
            let (id, key): (String, String) = (row.try_get(1)?, row.try_get(2)?);
            let (seq, at): (i64, i64) = (row.try_get(3)?, row.try_get(5)?);
            let mut event = Event::effect(id).at(at.try_into()?).by(row.try_get::<String, _>(4)?);
            if plan.name == Name::Order {
                event = event.in_order(key, seq.try_into()?);
            }
            effects.note(&event)?;
        }
        if rows.is_empty() {
            return Ok(());
        }
    }
}

/// What is left in progress, in words, when all is quiet.
pub(super) async fn stuck(stage: &Stage) -> Result<Vec<String>, Failure> {
    let mut stuck = Vec::new();
    if stage.postgres.is_some() {
        const OPEN: &str = "SELECT count(*) FROM pg_stat_activity \
                            WHERE state LIKE 'idle in transaction%' AND now() - xact_start > interval '5 s'";
        let open: i64 = sqlx::query_scalar(OPEN).fetch_one(&mut stage.database().await?).await?;
        if open > 0 {
            stuck.push(format!("{open} open transactions"));
        }
    }
    Ok(stuck)
}
