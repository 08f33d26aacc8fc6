//! The service behind the sockets: gives messages their numbers, and tells all servers of them.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::{
    HandlerError, Json, LostReplies, OrderKey, Outgoing, Reply, ReplyError, RetryPolicy, Service,
    State, Subscription,
};
use mmate_examples::database::{Statements, Value};
use mmate_examples::program::Failure;
use mmate_examples::sign_in::Name;
use mmate_examples::sockets::Mailboxes;
use mmate_idempotency::sequence::Sequence;
use mmate_idempotency::store::Store;
use mmate_idempotency::{Key, Locked, Outbox, OutboxMessage, Transactional, Tx};
use sqlx::Pool;

use crate::message::{Heard, Said, Say, What, now_ms};

/// What is asked with a [`Say`].
pub(crate) const SAY: &str = "Say";

/// The code of an id that was used for something else.
pub(crate) const CONFLICT: &str = "conflict";

/// The codes of what the sender may not do: no attempt will be better.
pub(crate) const REFUSALS: [&str; 3] = ["not-a-member", "is-a-member", "not-a-group"];

/// `chat.said.CONVERSATION` is what servers hear.
const SAID: &str = "chat.said";

pub(crate) const IS_MEMBER: &str = "
SELECT from_number FROM memberships WHERE conversation = $1 AND member = $2 AND to_number IS NULL";

const IS_GROUP: &str =
    "SELECT created_at_ms FROM conversations WHERE id = $1 AND participants IS NULL";

const MEMBERS: &str =
    "SELECT member FROM memberships WHERE conversation = $1 AND to_number IS NULL";

const WRITE: &str = "
INSERT INTO messages (conversation, number, sender, message_id, kind, said, sent_at_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7)";

const NUMBER: &str = "SELECT number FROM messages WHERE sender = $1 AND message_id = $2";

const TIME: &str = "SELECT sent_at_ms FROM messages WHERE sender = $1 AND message_id = $2";

const TEXT: &str = "
SELECT said FROM messages
WHERE sender = $1 AND message_id = $2 AND conversation = $3 AND kind = $4";

const ADD: &str = "INSERT INTO memberships (conversation, member, from_number) VALUES ($1, $2, $3)";

const REMOVE: &str = "
UPDATE memberships SET to_number = $1
WHERE conversation = $2 AND member = $3 AND to_number IS NULL";

const CONTACT: &str = "INSERT INTO contacts (owner, contact) VALUES ($1, $2)";

/// `say` has a lock by conversation around a transaction by message, with the number and an outbox in that. `hear` is at
/// every server.
pub(crate) async fn service<DB: Statements>(
    pool: &Pool<DB>,
    store: Arc<dyn Store>,
    lease: Duration,
    mailboxes: Mailboxes,
) -> Result<Service, Failure> {
    numbers::<DB>().migrate(pool).await?;
    let conversation = || Key::json_pointer("/conversation");
    let retry = RetryPolicy::exponential(Duration::from_millis(50), Duration::from_secs(2));
    let locked = Locked::by(store, conversation()).scope("conversations").lease(lease);
    let say = Subscription::queries("say", [SAY])
        .ordered_by(OrderKey::json_pointer("/conversation"))
        .retry(retry.max_attempts(10))
        // Whoever asked at a server that is gone asks again at another one.
        .lost_replies(LostReplies::Drop)
        .middleware(Outbox::new(pool.clone()))
        .middleware(locked.wait(Duration::from_secs(2)))
        .idempotent(Transactional::new(pool.clone()).key(Key::json_pointer("/id")))
        .handler(say::<DB>);
    let hear = Subscription::per_instance("hear", [format!("{SAID}.*")]).handler(hear);
    Ok(Service::new("chat").state(mailboxes).subscribe(say).subscribe(hear))
}

/// The numbers of messages, by conversation.
pub(crate) fn numbers<DB: Statements>() -> Sequence<DB> {
    Sequence::new("chat")
}

/// The message's id says whether it was said before; the lock, that nobody else is at this conversation; the sequence, which
/// number is next, without a gap; the outbox, that the servers hear of it if and only if it is there.
async fn say<DB: Statements>(
    Json(say): Json<Say>,
    mut tx: Tx<DB>,
    outbox: Outbox<DB>,
) -> Result<Reply<Said>, HandlerError> {
    if let Some(said) = said_long_ago::<DB>(&mut tx, &say).await? {
        return Ok(Reply(said));
    }
    let Say { conversation, sender, what, .. } = &say;
    check::<DB>(&mut tx, conversation, sender, what).await?;
    let number = numbers::<DB>().next(&mut tx, conversation).await?;
    let said = Said { number, sent_at_ms: now_ms(), is_new: true };
    let (kind, text) = what.parts();
    let values: [Value<'_>; 7] = [
        conversation.into(),
        number.into(),
        sender.as_str().into(),
        say.message_id().into(),
        kind.into(),
        text.into(),
        said.sent_at_ms.into(),
    ];
    DB::execute(&mut tx, WRITE, &values).await?;

    let mut members = DB::texts(&mut tx, MEMBERS, &[conversation.into()]).await?;
    match what {
        // Whoever is added sees that, and what comes after it.
        What::Added(name) => {
            let values = [conversation.into(), name.as_str().into(), (number - 1).into()];
            DB::execute(&mut tx, ADD, &values).await?;
            members.push(name.to_string());
        }
        // Whoever is removed sees that, and nothing after it.
        What::Removed(name) => {
            let values = [number.into(), conversation.into(), name.as_str().into()];
            DB::execute(&mut tx, REMOVE, &values).await?;
        }
        What::Text(_) if !is_group::<DB>(&mut tx, conversation).await? => {
            for other in members.iter().filter(|member| *member != sender.as_str()) {
                meet::<DB>(&mut tx, sender.as_str(), other).await?;
                meet::<DB>(&mut tx, other, sender.as_str()).await?;
            }
        }
        What::Text(_) | What::Made => {}
    }
    let members = members.into_iter().map(Name::try_from).collect::<Result<_, _>>();
    let members = members.map_err(HandlerError::permanent)?;
    let heard = Heard { conversation: conversation.clone(), members };
    let message = Outgoing::event(format!("{SAID}.{conversation}"), "Said", &heard);
    outbox.publish(&mut tx, OutboxMessage::new(message)).await?;
    Ok(Reply(said))
}

/// What is in the table though its record is gone: a client that was away for longer than records are kept sends what it was
/// not answered.
async fn said_long_ago<DB: Statements>(
    tx: &mut Tx<DB>,
    say: &Say,
) -> Result<Option<Said>, HandlerError> {
    let (sender, id) = (say.sender.as_str().into(), say.message_id().into());
    let Some(number) = DB::number(tx, NUMBER, &[sender, id]).await? else { return Ok(None) };
    let (kind, text) = say.what.parts();
    let values = [sender, id, (&say.conversation).into(), kind.into()];
    if DB::texts(tx, TEXT, &values).await? != [text] {
        return Err(ReplyError::new(CONFLICT, "this id was used for another message").into());
    }
    let sent_at_ms = DB::number(tx, TIME, &[sender, id]).await?.unwrap_or_default();
    Ok(Some(Said { number, sent_at_ms, is_new: false }))
}

/// Whether the sender may do that.
async fn check<DB: Statements>(
    tx: &mut Tx<DB>,
    conversation: &str,
    sender: &Name,
    what: &What,
) -> Result<(), HandlerError> {
    let refuse = |code: &str, text: &str| Err(ReplyError::new(code, text).into());
    let [not_a_member, is_a_member, not_a_group] = REFUSALS;
    if !is_member::<DB>(tx, conversation, sender).await? {
        return refuse(not_a_member, "you are not in this conversation");
    }
    let (What::Added(name) | What::Removed(name)) = what else { return Ok(()) };
    if !is_group::<DB>(tx, conversation).await? {
        return refuse(not_a_group, "this conversation is one of two: make a group");
    }
    let is_there = is_member::<DB>(tx, conversation, name).await?;
    match (what, is_there) {
        (What::Added(_), true) => refuse(is_a_member, "this user is in the group already"),
        (What::Removed(_), false) => refuse(not_a_member, "this user is not in the group"),
        _ => Ok(()),
    }
}

async fn is_member<DB: Statements>(
    tx: &mut Tx<DB>,
    conversation: &str,
    name: &Name,
) -> sqlx::Result<bool> {
    let values = [conversation.into(), name.as_str().into()];
    Ok(DB::number(tx, IS_MEMBER, &values).await?.is_some())
}

async fn is_group<DB: Statements>(tx: &mut Tx<DB>, conversation: &str) -> sqlx::Result<bool> {
    Ok(DB::number(tx, IS_GROUP, &[conversation.into()]).await?.is_some())
}

async fn meet<DB: Statements>(tx: &mut Tx<DB>, owner: &str, contact: &str) -> sqlx::Result<()> {
    let insert = DB::DIALECT.insert_new(CONTACT);
    DB::execute(tx, &insert, &[owner.into(), contact.into()]).await.map(drop)
}

/// Wakes those of the readers who are connected to this server.
async fn hear(
    Json(heard): Json<Heard>,
    State(mailboxes): State<Mailboxes>,
) -> Result<(), HandlerError> {
    for member in &heard.members {
        mailboxes.tell(member, &heard.conversation);
    }
    Ok(())
}
