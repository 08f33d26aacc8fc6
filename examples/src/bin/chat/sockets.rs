//! What clients may ask over their socket, and how it is answered.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use mmate_core::{MessageId, Outgoing, Publisher, RequestError, error_chain};
use mmate_examples::sign_in::{Name, Signer};
use mmate_examples::sockets::{self, AtOnce, Mailboxes};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef, TryData};

use crate::delivery::{self, Seen};
use crate::directory::Directory;
use crate::message::{Said, Say, What};
use crate::talk::{CONFLICT, REFUSALS, SAY};

pub(crate) const SENT: &str = "chat_messages_total";

/// How long a message may take to get its number.
const ANSWERING: Duration = Duration::from_secs(10);

/// So much is done for a client at the same time.
const AT_ONCE: usize = 32;

/// The largest text, in letters.
const LARGEST: usize = 4_000;

/// PostgreSQL keeps no text with it: the message would be tried in vain, and die.
const NUL: char = '\0';

/// What the sockets of a server need.
#[derive(Clone)]
pub(crate) struct Room {
    pub(crate) directory: Directory,
    pub(crate) publisher: Publisher,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) signer: Signer,
    pub(crate) servers: Arc<[String]>,
}

/// The one behind a socket who asks.
#[derive(Debug, Clone)]
struct Asker {
    name: Name,
    at_once: AtOnce,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    with: Name,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Group {
    message_id: MessageId,
    title: String,
    members: Vec<Name>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Text {
    message_id: MessageId,
    conversation: String,
    text: String,
}

/// Of `add` and `remove`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    message_id: MessageId,
    conversation: String,
    name: Name,
}

/// An answer to a client: an object, or what is wrong.
type Answer = Result<Value, String>;

impl Room {
    /// Has the sockets handled. A client says what it has seen.
    pub(crate) fn open(&self, io: &SocketIo) {
        let room = self.clone();
        sockets::welcome(io, self.signer.clone(), move |socket, name, seen: Seen| {
            room.clone().welcome(socket, name, seen)
        });
    }

    async fn welcome(self, socket: SocketRef, name: Name, seen: Seen) {
        let asker = Asker { name: name.clone(), at_once: AtOnce::new(AT_ONCE) };
        self.on(&socket, &asker, "open", async |room: Self, name, Open { with }| {
            room.open_direct(&name, &with).await
        });
        self.on(&socket, &asker, "group", async |room: Self, name, group| {
            room.open_group(&name, group).await
        });
        self.on(&socket, &asker, "send", async |room: Self, name, text: Text| {
            let length = text.text.chars().count();
            if !(1..=LARGEST).contains(&length) || text.text.contains(NUL) {
                return Err(format!("a text has 1 to {LARGEST} letters, and none is NUL"));
            }
            room.say(&name, &text.message_id, text.conversation, What::Text(text.text)).await
        });
        self.on(&socket, &asker, "add", async |room: Self, name, change: Change| {
            let what = What::Added(change.name);
            room.say(&name, &change.message_id, change.conversation, what).await
        });
        self.on(&socket, &asker, "remove", async |room: Self, name, change: Change| {
            let what = What::Removed(change.name);
            room.say(&name, &change.message_id, change.conversation, what).await
        });
        self.on(&socket, &asker, "conversations", async |room: Self, name, _: Value| {
            let all = room.directory.conversations(&name).await;
            Ok(json!({"conversations": all.map_err(|error| error_chain(&error))?}))
        });
        self.on(&socket, &asker, "contacts", async |room: Self, name, _: Value| {
            let all = room.directory.contacts(&name).await;
            Ok(json!({"contacts": all.map_err(|error| error_chain(&error))?}))
        });
        delivery::deliver(socket, name, seen, self.directory, self.mailboxes).await;
    }

    /// Answers an event with what `answer` gives, or with what is wrong with its data.
    fn on<D, F, A>(&self, socket: &SocketRef, asker: &Asker, event: &'static str, answer: F)
    where
        D: DeserializeOwned + Send + Sync + 'static,
        F: Fn(Self, Name, D) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let (room, Asker { name, at_once }) = (self.clone(), asker.clone());
        socket.on(event, async move |TryData(data): TryData<D>, ack: AckSender| {
            let answered = match (at_once.begin(), data) {
                (Ok(_begun), Ok(data)) => answer(room, name, data).await,
                (Err(error), _) => Err(error.to_owned()),
                (_, Err(error)) => Err(error.to_string()),
            };
            let answer = match answered {
                Ok(mut value) => {
                    value["success"] = true.into();
                    value
                }
                Err(error) => json!({"success": false, "error": error}),
            };
            // Whoever has left asks again.
            let _ = ack.send(&answer);
        });
    }

    pub(crate) async fn open_direct(&self, who: &Name, with: &Name) -> Answer {
        let opened = self.directory.open_direct(who, with).await?;
        serde_json::to_value(opened).map_err(|error| error.to_string())
    }

    /// Makes it, and says so in it: with that it shows at its members.
    async fn open_group(&self, maker: &Name, group: Group) -> Answer {
        let Group { message_id, title, members } = group;
        let title = title.trim();
        if !(1..=100).contains(&title.len()) || title.contains(NUL) || members.len() > 200 {
            let reason = "a group has a title of 1 to 100 bytes without NUL, and up to 200 members";
            return Err(reason.to_owned());
        }
        let opened = self.directory.open_group(maker, &message_id, title, &members).await?;
        let conversation = opened.conversation.clone();
        self.say(maker, &message_id, conversation, What::Made).await?;
        serde_json::to_value(opened).map_err(|error| error.to_string())
    }

    /// Asks whichever server takes it to give the message its number. A copy is answered as the first was.
    async fn say(
        &self,
        sender: &Name,
        message_id: &MessageId,
        conversation: String,
        what: What,
    ) -> Answer {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !(1..=64).contains(&conversation.len()) || !conversation.chars().all(is_fit) {
            return Err("there is no such conversation".to_owned());
        }
        if message_id.as_str().len() > 200 {
            return Err("a messageId has 200 bytes at most".to_owned());
        }
        let id = format!("{sender}/{message_id}");
        let say = Say { id, conversation, sender: sender.clone(), what };
        let asked = self.publisher.request::<Said>(Outgoing::query(SAY, &say)).timeout(ANSWERING);
        let said = match asked.reply().await {
            Ok(said) => said,
            Err(RequestError::Failed(reply)) if REFUSALS.contains(&&*reply.code) => {
                return Err(reply.message);
            }
            Err(RequestError::Failed(reply)) if reply.code == CONFLICT => {
                return Err("this messageId was used for another message".to_owned());
            }
            Err(error) => {
                let reason = error_chain(&error);
                return Err(format!("try again with the same messageId: {reason}"));
            }
        };
        let cached = said.replayed || !said.value.is_new;
        counter!(SENT, "cached" => cached.to_string()).increment(1);
        let Said { number, sent_at_ms, .. } = said.value;
        Ok(json!({"cached": cached, "number": number, "sentAtMs": sent_at_ms}))
    }
}
