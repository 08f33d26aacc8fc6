//! The tables.

use mmate_examples::database::Connections;
use mmate_examples::program::Failure;

const TABLES: [&str; 5] = [
    // `participants` is `anna:bert` where two talk, and NULL for a group, which has a title.
    "CREATE TABLE IF NOT EXISTS conversations (
        id VARCHAR(64) PRIMARY KEY, participants VARCHAR(65), title VARCHAR(100), created_at_ms BIGINT NOT NULL
    )",
    // Who sees the messages after one number up to another; whoever is removed and comes back has two rows.
    "CREATE TABLE IF NOT EXISTS memberships (
        conversation VARCHAR(64) NOT NULL, member VARCHAR(32) NOT NULL,
        from_number BIGINT NOT NULL, to_number BIGINT,
        PRIMARY KEY (conversation, member, from_number)
    )",
    // The numbers are without a gap in each conversation.
    "CREATE TABLE IF NOT EXISTS messages (
        conversation VARCHAR(64) NOT NULL, number BIGINT NOT NULL,
        sender VARCHAR(32) NOT NULL, message_id VARCHAR(200) NOT NULL,
        kind VARCHAR(8) NOT NULL, said TEXT NOT NULL, sent_at_ms BIGINT NOT NULL,
        PRIMARY KEY (conversation, number), UNIQUE (sender, message_id)
    )",
    "CREATE TABLE IF NOT EXISTS contacts (
        owner VARCHAR(32) NOT NULL, contact VARCHAR(32) NOT NULL, PRIMARY KEY (owner, contact)
    )",
    "CREATE INDEX IF NOT EXISTS memberships_of ON memberships (member)",
];

/// What keeps two conversations of the same two users out, whatever the servers do.
const ONE_EACH: &str =
    "CREATE UNIQUE INDEX IF NOT EXISTS one_conversation_each ON conversations (participants)";

/// Makes what is missing.
pub(crate) async fn create(connections: &Connections) -> Result<(), Failure> {
    Ok(connections.create(&TABLES).await?)
}

/// Makes sure that two users have one conversation. Fails if they have more.
pub(crate) async fn guard(connections: &Connections) -> Result<(), Failure> {
    match connections.create(&[ONE_EACH]).await {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            let reason = "some users have more than one conversation with each other, from before: \
                          `chat merge --database URL` makes one of them";
            Err(reason.into())
        }
        made => Ok(made?),
    }
}
