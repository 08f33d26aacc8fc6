//! One supervised connection to the broker: whoever needs it asks for the session of the moment.
//!
//! lapin can recover connections by itself, but leaves consumers silently dead in several ways
//! (after a channel error, with a server-named queue, when its attempts are used up). So a session
//! that fails in any way is torn down here and a new one is made from scratch; what belonged to the
//! old one (a channel, the right to settle a delivery) is worth nothing any more.

mod channel;
mod dial;
mod fate;
mod intake;
mod kit;
mod mend;
mod plug;
mod rest;
mod session;
mod supervisor;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use mmate_core::health::Status;
use mmate_core::transport::TransportError;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use channel::Channel;
pub(crate) use dial::Dialer;
#[cfg(feature = "fuzzing")]
pub(crate) use mend::mend_header;
pub(crate) use session::{Flush, Session};
pub(crate) use wire::Security;

use crate::failure::Failure;

/// What a connection is for. Publishing and consuming are kept apart, since a broker that runs out
/// of memory or disk blocks the connections that publish, and lapin writes nothing on those, not
/// even acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Publish,
    Consume,
}

impl Role {
    /// The word in logs, metrics and the connection's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// A connection that is rebuilt whenever it fails. Dropping it stops that.
pub(crate) struct Link {
    state: watch::Receiver<State>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

#[derive(Clone)]
enum State {
    Down { since: Instant, reason: Arc<str> },
    Up(Arc<Session>),
    Closed,
    GivenUp(Failure),
}

impl Link {
    /// Makes the first session, and starts the supervisor that makes the others.
    ///
    /// While the broker is unreachable this goes on trying; what no waiting mends is an error.
    pub(crate) async fn open(dialer: Dialer) -> Result<Self, TransportError> {
        let session = Arc::new(supervisor::first_session(&dialer).await?);
        let stop = CancellationToken::new();
        let (publish, state) = watch::channel(State::Up(Arc::clone(&session)));
        tokio::spawn(supervisor::supervise(dialer, session, publish, stop.clone()));
        Ok(Self { state, _stop_on_drop: stop.clone().drop_guard(), stop })
    }

    /// The current session; waits while there is none. One that has failed is none, also if the
    /// supervisor has yet to notice: who tries again at once would get it again at once, and with
    /// as many of those as there are threads the supervisor would never notice.
    ///
    /// # Errors
    /// [`Failure::Closed`] once the link was closed, [`Failure::GivenUp`] when there was none for
    /// too long.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut state = self.state.clone();
        let is_settled = |state: &State| match state {
            State::Down { .. } => false,
            State::Up(session) => !session.is_lost(),
            State::Closed | State::GivenUp(_) => true,
        };
        let Ok(state) = state.wait_for(is_settled).await else { return Err(Failure::Closed) };
        match &*state {
            State::Up(session) => Ok(Arc::clone(session)),
            State::GivenUp(reason) => Err(reason.clone()),
            State::Closed | State::Down { .. } => Err(Failure::Closed),
        }
    }

    /// How the connection is.
    pub(crate) fn status(&self) -> Status {
        match &*self.state.borrow() {
            State::Up(session) if session.is_blocked() => {
                Status::degraded("the broker blocks the connection, for a memory or disk alarm")
            }
            State::Up(_) => Status::Up,
            State::Down { since, reason } => {
                let seconds = since.elapsed().as_secs();
                Status::down(format!("not connected for {seconds} s: {reason}"))
            }
            State::Closed => Status::down("it was closed"),
            State::GivenUp(reason) => Status::down(reason.to_string()),
        }
    }

    /// Ends the session in good order, and starts no other. Returns when it has ended.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        let mut state = self.state.clone();
        // An error says that the supervisor is gone, which is as good.
        let _ = state.wait_for(|state| matches!(state, State::Closed | State::GivenUp(_))).await;
    }
}
