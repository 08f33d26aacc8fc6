//! The tool for conversations from before: one of those that the same two users have.

use std::collections::BTreeMap;

use mmate_examples::database::{Connections, Statements, Value};
use mmate_examples::program::Failure;
use mmate_examples::with_database;
use sqlx::Pool;

use crate::tables;
use crate::talk::{IS_MEMBER, numbers};

/// The oldest first: it stays.
const DIRECT: &str = "SELECT id FROM conversations WHERE participants IS NOT NULL
ORDER BY created_at_ms, id";

const PARTICIPANTS: &str = "SELECT participants FROM conversations WHERE id = $1";

const LAST: &str = "SELECT coalesce(max(number), 0) FROM messages WHERE conversation = $1";

/// In the order in which they were sent, as far as that is known.
const MESSAGES: &str =
    "SELECT number FROM messages WHERE conversation = $1 ORDER BY sent_at_ms, number LIMIT 1";

const MOVE: &str =
    "UPDATE messages SET conversation = $1, number = $2 WHERE conversation = $3 AND number = $4";

const NAME: &str = "UPDATE conversations SET participants = $1 WHERE id = $2";

const JOIN: &str = "INSERT INTO memberships (conversation, member, from_number) VALUES ($1, $2, 0)";

const FORGET: [&str; 2] =
    ["DELETE FROM memberships WHERE conversation = $1", "DELETE FROM conversations WHERE id = $1"];

/// Merges, reports, and makes sure that there will be no more.
pub(crate) async fn run(database: &str) -> Result<(), Failure> {
    let merged = with_database!(database, DB => {
        let pool = DB::connect(database, 2).await?;
        let connections = Connections::open(database, 2)?;
        tables::create(&connections).await?;
        let merged = merge(&pool).await?;
        tables::guard(&connections).await?;
        merged
    });
    for Merged { participants, into, others, messages } in &merged {
        let others = others.join(", ");
        println!("{participants}: {into} has {messages} messages more, of {others}");
    }
    println!(
        "merged {} conversations",
        merged.iter().map(|merged| merged.others.len()).sum::<usize>()
    );
    Ok(())
}

/// What became of the conversations of two users who had several.
#[derive(Debug)]
struct Merged {
    participants: String,
    /// The oldest.
    into: String,
    others: Vec<String>,
    messages: i64,
}

/// In one transaction: all or nothing. Stop the servers first.
async fn merge<DB: Statements>(pool: &Pool<DB>) -> Result<Vec<Merged>, Failure> {
    numbers::<DB>().migrate(pool).await?;
    let mut tx = pool.begin().await?;
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for id in DB::texts(&mut tx, DIRECT, &[]).await? {
        let written = DB::texts(&mut tx, PARTICIPANTS, &[(&id).into()]).await?.concat();
        found.entry(in_order(&written)).or_default().push(id);
    }
    let mut all = Vec::new();
    for (participants, ids) in found {
        let Some((into, others)) = ids.split_first() else { continue };
        let mut messages = 0;
        for other in others {
            messages += append::<DB>(&mut tx, other, into).await?;
            for statement in FORGET {
                DB::execute(&mut tx, statement, &[other.into()]).await?;
            }
        }
        DB::execute(&mut tx, NAME, &[(&participants).into(), into.into()]).await?;
        for member in participants.split(':') {
            let is_there = DB::number(&mut tx, IS_MEMBER, &[into.into(), member.into()]).await?;
            if is_there.is_none() {
                DB::execute(&mut tx, JOIN, &[into.into(), member.into()]).await?;
            }
        }
        if !others.is_empty() {
            let (into, others) = (into.clone(), others.to_owned());
            all.push(Merged { participants, into, others, messages });
        }
    }
    tx.commit().await?;
    Ok(all)
}

/// Gives the messages of one conversation the next numbers of another, so that whoever has read that one is shown them; how
/// many there are.
async fn append<DB: Statements>(
    connection: &mut DB::Connection,
    from: &str,
    into: &str,
) -> Result<i64, Failure> {
    let last = DB::number(connection, LAST, &[into.into()]).await?.unwrap_or_default();
    numbers::<DB>().raise(connection, into, last).await?;
    let mut moved = 0;
    while let Some(old) = DB::number(connection, MESSAGES, &[from.into()]).await? {
        let new = numbers::<DB>().next(connection, into).await?;
        let values: [Value<'_>; 4] = [into.into(), new.into(), from.into(), old.into()];
        DB::execute(connection, MOVE, &values).await?;
        moved += 1;
    }
    Ok(moved)
}

fn in_order(participants: &str) -> String {
    let mut names = participants.to_lowercase();
    if let Some((first, second)) = participants.to_lowercase().split_once(':')
        && first > second
    {
        names = format!("{second}:{first}");
    }
    names
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn two_users_have_one_name_for_their_conversation() {
        assert_eq!(in_order("bert:anna"), "anna:bert");
        assert_eq!(in_order("Anna:Bert"), "anna:bert");
        assert_eq!(in_order("anna:bert"), "anna:bert");
    }
}
