//! One connection from its making to its end.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use lapin::Connection;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Role;
use super::channel::{Channel, Closings};
use super::plug::Plug;
use crate::address::Node;
use crate::failure::{Failure, within};

/// One connection from its making to its end. What was made on it ends with it.
pub(crate) struct Session {
    generation: u64,
    node: Node,
    pub(super) connection: Connection,
    plug: Plug,
    role: Role,
    answer_timeout: Duration,
    lost: CancellationToken,
    closings: Closings,
    end: OnceLock<String>,
    given_up: watch::Sender<Option<String>>,
    blocked: watch::Sender<bool>,
    flushed_before_close: Mutex<Vec<Weak<dyn Flush>>>,
}

/// Has something that is yet to be written.
pub(crate) trait Flush: Send + Sync {
    /// Hands it over.
    fn flush(&self);
}

impl Session {
    pub(super) fn new(
        generation: u64,
        node: Node,
        connection: Connection,
        plug: Plug,
        role: Role,
        answer_timeout: Duration,
    ) -> Self {
        let blocked = connection.status().blocked();
        let lost = CancellationToken::new();
        Self {
            generation,
            node,
            connection,
            plug,
            role,
            answer_timeout,
            closings: Closings::new(lost.clone(), answer_timeout),
            lost,
            end: OnceLock::new(),
            given_up: watch::Sender::new(None),
            blocked: watch::Sender::new(blocked),
            flushed_before_close: Mutex::default(),
        }
    }

    /// Whether nothing came for about as long as the peer may be silent, which is twice the
    /// heartbeat. lapin 4.12 looks every half heartbeat only, and so finds out later than that.
    pub(super) fn is_silent(&self, until_next_look: Duration) -> bool {
        let heartbeat = Duration::from_secs(self.connection.configuration().heartbeat().into());
        // A little early, so that it is in time on a busy machine as well.
        let longest = heartbeat * 2 - heartbeat / 8;
        !heartbeat.is_zero() && self.plug.intake().silence() + until_next_look > longest
    }

    /// How many bytes a body that is delivered on this channel may have, from now on. A delivery of
    /// a larger one comes without it.
    pub(crate) fn limit_bodies(&self, channel: &Channel, bytes: Option<u64>) {
        self.plug.intake().limit(channel.id(), bytes);
    }

    /// How many bytes the body of a delivery had, if it was left out. Tells it once.
    pub(crate) fn left_out(&self, channel: &Channel, tag: u64) -> Option<u64> {
        self.plug.intake().left_out(channel.id(), tag)
    }

    /// Counts the connections of a link, from 1.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The one it is with.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// The user that we are to the broker.
    pub(crate) fn user(&self) -> String {
        self.connection.status().username()
    }

    /// Whether it has ended.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled() || !self.connection.status().connected()
    }

    /// Ready when it has ended.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Cancelled when it has ended.
    pub(crate) fn end_token(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Has the session torn down: something showed that it is of no use.
    pub(crate) fn give_up(&self, reason: impl Into<String>) {
        self.given_up.send_if_modified(|given| {
            let first = given.is_none();
            given.get_or_insert_with(|| reason.into());
            first
        });
    }

    pub(super) async fn given_up(&self) -> String {
        let mut given_up = self.given_up.subscribe();
        // Not an error while the session holds the sender.
        let reason = given_up.wait_for(Option::is_some).await.ok().and_then(|r| r.clone());
        reason.unwrap_or_default()
    }

    /// Whether the broker takes nothing from this connection, for an alarm.
    pub(super) fn set_blocked(&self, is: bool) {
        self.blocked.send_replace(is);
        crate::telemetry::blocked(self.role.as_str(), is);
    }

    /// Whether the broker takes nothing from this connection.
    pub(super) fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Ready when the broker takes what is sent, or when the session has ended.
    pub(crate) async fn unblocked(&self) {
        if !*self.blocked.borrow() {
            return;
        }
        let mut blocked = self.blocked.subscribe();
        tokio::select! {
            _ = blocked.wait_for(|blocked| !blocked) => {}
            () = self.lost() => {}
        }
    }

    /// Opens a channel.
    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        // lapin 4.12 keeps the error that the broker closed a channel with under the channel's
        // number, and greets the next channel of that number with it. Numbers come around after
        // 2047 channels; so a refusal that cannot be meant for this channel is not the last word.
        let mut attempts = 1..=3;
        loop {
            match self.ask(self.connection.create_channel()).await {
                Err(failure) if failure.is_of_the_channel() && attempts.next().is_some() => {}
                opened => return opened.map(|channel| self.closings.channel(channel)),
            }
        }
    }

    /// Waits for the answer to a call on this session.
    pub(crate) async fn ask<T>(
        &self,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Failure> {
        let answer = tokio::select! {
            biased;
            answer = within(self.answer_timeout, call) => answer,
            () = self.lost() => Err(Failure::Lost),
        };
        if let Err(Failure::NoAnswer(limit)) = &answer {
            self.give_up(format!("the broker did not answer within {limit:?}"));
        }
        answer
    }

    /// Runs something to its end, which the end of the session waits for.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.closings.spawn(what)
    }

    /// How long an answer of the broker may take.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    /// Runs something on a channel of its own: an error of the broker closes the channel it
    /// happens on, and nothing else.
    pub(crate) async fn aside<T>(
        &self,
        run: impl AsyncFnOnce(&lapin::Channel) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let channel = self.channel().await?;
        let result = run(&channel).await;
        self.close_channel(&channel).await;
        result
    }

    /// Closes a channel, if the broker has not.
    pub(crate) async fn close_channel(&self, channel: &Channel) {
        if channel.status().connected() {
            self.closings.rest().over().await;
            // If this fails the session is about to end.
            let _ = self.ask(channel.close(OK, "".into())).await;
        }
    }

    /// Why it has ended, waited for: the calls that the end interrupts are not told.
    pub(crate) async fn end_reason(&self) -> &str {
        let _ = tokio::time::timeout(self.answer_timeout, self.lost()).await;
        self.end.get().map_or("", String::as_str)
    }

    /// Marks it as ended, so that nobody waits for it any more.
    pub(super) fn end(&self, reason: &str) {
        let _ = self.end.set(reason.to_owned());
        self.lost.cancel();
        self.plug.pull();
    }

    /// So many frames that settle deliveries were written.
    pub(crate) fn settled(&self, frames: usize) {
        self.closings.rest().written(frames);
    }

    /// Has it hand over what it has to write, before the session is closed in good order.
    pub(crate) fn flush_before_close(&self, it: &Arc<dyn Flush>) {
        let mut them = self.flushed_before_close.lock().unwrap_or_else(PoisonError::into_inner);
        them.retain(|it| it.strong_count() > 0);
        them.push(Arc::downgrade(it));
    }

    fn flush(&self) {
        let them = std::mem::take(
            &mut *self.flushed_before_close.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for it in them.iter().filter_map(Weak::upgrade) {
            it.flush();
        }
    }

    /// Closes it in good order, or without if that takes too long: first its channels, with all
    /// that is yet to be written on them.
    pub(super) async fn close(&self) {
        self.flush();
        let _ = tokio::time::timeout(self.answer_timeout, self.closings.ended()).await;
        if self.connection.status().connected() {
            self.closings.rest().over().await;
            // Where it fails the plug does it.
            let _ = within(self.answer_timeout, self.connection.close(OK, "".into())).await;
        }
        self.end("it was closed");
    }
}

/// The reply code of an orderly close (AMQP 0-9-1, 1.2).
pub(super) const OK: u16 = 200;

impl Drop for Session {
    fn drop(&mut self) {
        self.end("it was dropped");
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("role", &self.role)
            .field("generation", &self.generation)
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}
