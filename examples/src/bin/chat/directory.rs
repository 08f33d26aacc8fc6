//! Conversations: made once, whoever asks and however often; and what is in them.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::MessageId;
use mmate_core::error_chain;
use mmate_core::health::Status;
use mmate_examples::database::Connections;
use mmate_examples::program::Failure;
use mmate_examples::sign_in::Name;
use mmate_idempotency::protocol::Digest;
use mmate_idempotency::store::{RecordKey, Store};
use mmate_idempotency::{Idempotent, Ran, RunError};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::message::{Shown, now_ms};
use crate::tables;

const MAKE: &str = "
INSERT INTO conversations (id, participants, title, created_at_ms) VALUES ($1, $2, $3, $4)";

const JOIN: &str = "
INSERT INTO memberships (conversation, member, from_number) VALUES ($1, $2, 0)";

const FIND: &str = "SELECT id FROM conversations WHERE participants = $1";

const OF_MEMBER: &str = "
SELECT c.id, c.title, c.participants, m.member, m.to_number
FROM conversations c JOIN memberships m ON m.conversation = c.id
WHERE c.id IN (SELECT conversation FROM memberships WHERE member = $1)
ORDER BY c.id, m.member, m.from_number";

const PLACES: &str = "SELECT DISTINCT conversation FROM memberships WHERE member = $1";

/// What a member sees: what was said while it was one.
const AFTER: &str = "
SELECT conversation, number, sender, message_id, kind, said, sent_at_ms FROM messages t
WHERE conversation = $1 AND number > $2 AND EXISTS (
    SELECT 1 FROM memberships m WHERE m.conversation = t.conversation AND m.member = $3
    AND t.number > m.from_number AND (m.to_number IS NULL OR t.number <= m.to_number)
) ORDER BY number LIMIT 100";

const CONTACTS: &str = "SELECT contact FROM contacts WHERE owner = $1 ORDER BY contact";

#[derive(Debug, Clone)]
pub(crate) struct Directory {
    connections: Connections,
    records: Idempotent,
}

/// A conversation, as its members are shown it.
#[derive(Debug, Serialize)]
pub(crate) struct Conversation {
    pub(crate) conversation: String,
    /// That of a group.
    pub(crate) title: Option<String>,
    /// Who is in it now.
    pub(crate) members: Vec<String>,
}

/// Which conversation it is, and whether it was made just now.
#[derive(Debug, Serialize)]
pub(crate) struct Opened {
    pub(crate) conversation: String,
    pub(crate) created: bool,
}

/// A conversation that is there.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    id: String,
    /// `false` if it was there although its record was not.
    is_new: bool,
}

impl Directory {
    /// Makes the tables that are missing.
    pub(crate) async fn open(
        database: &str,
        store: Arc<dyn Store>,
        lease: Duration,
    ) -> Result<Self, Failure> {
        let connections = Connections::open(database, 16)?;
        tables::create(&connections).await?;
        tables::guard(&connections).await?;
        let records = Idempotent::new(store).named("chat", "").lease(lease);
        Ok(Self { connections, records })
    }

    /// The one conversation of two users. Of all who ask at the same time, at any server, one makes it; all get it.
    pub(crate) async fn open_direct(&self, who: &Name, with: &Name) -> Result<Opened, String> {
        if who == with {
            return Err("a conversation is with somebody else".to_owned());
        }
        let (first, second) = if who < with { (who, with) } else { (with, who) };
        let participants = format!("{first}:{second}");
        let key = RecordKey::new("conversations", &participants).map_err(|e| error_chain(&e))?;
        let members = [first.clone(), second.clone()];
        let make = self.clone().make_direct(participants.clone(), members);
        let mut opened = opened(self.records.run(key, None, make).await)?;
        // What `chat merge` has made another one's since has a record still.
        if !opened.created
            && let Some(id) = self.find(&participants).await?
        {
            opened.conversation = id;
        }
        Ok(opened)
    }

    async fn find(&self, participants: &str) -> Result<Option<String>, String> {
        let find = self.connections.query(FIND).bind(participants.to_owned());
        let found = find.fetch_optional(self.connections.pool()).await;
        let found = found.and_then(|row| row.map(|row| row.try_get(0)).transpose());
        found.map_err(|error| format!("try again: {}", error_chain(&error)))
    }

    async fn make_direct(self, participants: String, members: [Name; 2]) -> sqlx::Result<Made> {
        let id = MessageId::generate().to_string();
        let is_new = self.make(&id, Some(&participants), None).await?;
        // Our own, or that of one whose record is gone, or was not written since its server died.
        let find = self.connections.query(FIND).bind(participants);
        let id: String = find.fetch_one(self.connections.pool()).await?.try_get(0)?;
        self.join(&id, &members).await?;
        Ok(Made { id, is_new })
    }

    /// A group. Its maker's client repeats itself under the same id.
    pub(crate) async fn open_group(
        &self,
        maker: &Name,
        message_id: &MessageId,
        title: &str,
        members: &[Name],
    ) -> Result<Opened, String> {
        let scope = format!("groups/{maker}");
        let key = RecordKey::new(&*scope, message_id).map_err(|error| error_chain(&error))?;
        let names = members.iter().map(Name::as_str);
        let fingerprint = Digest::of_parts([title].into_iter().chain(names));
        // The same in every attempt.
        let id = message_id.child(&scope, 0).to_string();
        let (this, title) = (self.clone(), title.to_owned());
        let members = [std::slice::from_ref(maker), members].concat();
        let make = async move {
            let is_new = this.make(&id, None, Some(&title)).await?;
            this.join(&id, &members).await?;
            Ok(Made { id, is_new })
        };
        opened(self.records.run(key, fingerprint, make).await)
    }

    /// `false` if it was there.
    async fn make(
        &self,
        id: &str,
        participants: Option<&str>,
        title: Option<&str>,
    ) -> sqlx::Result<bool> {
        let make = self.connections.insert_new(MAKE);
        let make = make.bind(id.to_owned()).bind(participants.map(str::to_owned));
        let make = make.bind(title.map(str::to_owned)).bind(now_ms());
        Ok(make.execute(self.connections.pool()).await?.rows_affected() > 0)
    }

    async fn join(&self, id: &str, members: &[Name]) -> sqlx::Result<()> {
        for member in members {
            let join = self.connections.insert_new(JOIN).bind(id.to_owned());
            join.bind(member.to_string()).execute(self.connections.pool()).await?;
        }
        Ok(())
    }

    /// All conversations of a user, and who is in them.
    pub(crate) async fn conversations(&self, of: &Name) -> sqlx::Result<Vec<Conversation>> {
        let rows = self.connections.query(OF_MEMBER).bind(of.to_string());
        let mut all = Vec::<Conversation>::new();
        for row in rows.fetch_all(self.connections.pool()).await? {
            let id: String = row.try_get("id")?;
            if all.last().is_none_or(|last| last.conversation != id) {
                let title = row.try_get("title")?;
                all.push(Conversation { conversation: id, title, members: Vec::new() });
            }
            let is_member = row.try_get::<Option<i64>, _>("to_number")?.is_none();
            if let Some(last) = all.last_mut().filter(|_| is_member) {
                last.members.push(row.try_get("member")?);
            }
        }
        Ok(all)
    }

    /// Where there may be messages for a user.
    pub(crate) async fn places(&self, of: &Name) -> sqlx::Result<Vec<String>> {
        self.texts(PLACES, of).await
    }

    pub(crate) async fn contacts(&self, of: &Name) -> sqlx::Result<Vec<String>> {
        self.texts(CONTACTS, of).await
    }

    async fn texts(&self, sql: &str, name: &Name) -> sqlx::Result<Vec<String>> {
        let rows = self.connections.query(sql).bind(name.to_string());
        let rows = rows.fetch_all(self.connections.pool()).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// The next messages that a user sees of a conversation, after a number.
    pub(crate) async fn after(
        &self,
        conversation: &str,
        number: i64,
        reader: &Name,
    ) -> sqlx::Result<Vec<Shown>> {
        let select = self.connections.query(AFTER).bind(conversation.to_owned());
        let select = select.bind(number).bind(reader.to_string());
        let rows = select.fetch_all(self.connections.pool()).await?;
        rows.iter().map(shown).collect()
    }

    /// How the database is.
    pub(crate) async fn database(&self) -> Status {
        self.connections.status().await
    }

    /// How the store is.
    pub(crate) async fn store(&self) -> Status {
        // What is wrong with it shows in its status.
        let _ = self.records.ping().await;
        self.records.status()
    }

    pub(crate) async fn close(&self) {
        self.records.finish(Duration::from_secs(10)).await;
        self.connections.close().await;
    }
}

fn opened(ran: Result<Ran<Made>, RunError<sqlx::Error>>) -> Result<Opened, String> {
    match ran {
        Ok(Ran::Fresh(Made { id, is_new })) => Ok(Opened { conversation: id, created: is_new }),
        Ok(Ran::Replayed(Made { id, .. })) => Ok(Opened { conversation: id, created: false }),
        Err(RunError::Conflict { .. }) => {
            Err("this messageId was used for another group".to_owned())
        }
        Err(error) => Err(format!("try again: {}", error_chain(&error))),
    }
}

fn shown(row: &AnyRow) -> sqlx::Result<Shown> {
    Ok(Shown {
        conversation: row.try_get("conversation")?,
        number: row.try_get("number")?,
        sender: row.try_get("sender")?,
        message_id: row.try_get("message_id")?,
        kind: row.try_get("kind")?,
        said: row.try_get("said")?,
        sent_at_ms: row.try_get("sent_at_ms")?,
    })
}
