//! Making sessions, watching them, and making others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::Event;
use mmate_core::transport::{TransportError, TransportErrorKind};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::State;
use super::dial::Dialer;
use super::fate::LastFailure;
use super::session::Session;
use crate::address::Node;
use crate::failure::Failure;
use crate::telemetry;

/// The first session. Unlike later ones it is not worth waiting for if the broker knows us and
/// refuses: whoever starts a service wants to be told of a wrong password.
pub(super) async fn first_session(dialer: &Dialer) -> Result<Session, TransportError> {
    let limit = dialer.settings.give_up_after;
    let connecting = dialer.fate.bound(limit, async |last| first_attempts(dialer, last).await);
    connecting.await.unwrap_or_else(|given_up| Err(given_up.into_error(attempted(dialer))))
}

fn attempted(dialer: &Dialer) -> String {
    format!("connect to {}", dialer.address)
}

async fn first_attempts(
    dialer: &Dialer,
    last_failure: &LastFailure,
) -> Result<Session, TransportError> {
    let mut failures = 0;
    loop {
        let failure = match dialer.dial(1, None).await {
            Ok(session) => {
                tracing::info!(
                    address = %dialer.address,
                    node = %session.node(),
                    role = dialer.role.as_str(),
                    "connected to the broker"
                );
                return Ok(session);
            }
            Err(failure) => failure,
        };
        let kind = failure.kind_of_connect();
        if kind != TransportErrorKind::Unreachable {
            let error = TransportError::new(kind, attempted(dialer)).caused_by(failure.to_string());
            return Err(match dialer.address.has_empty_vhost() {
                true => error.hint(
                    "the URL's path / is the virtual host with the empty name; the default \
                     virtual host is %2f, or no path at all",
                ),
                false => error,
            });
        }
        failures += 1;
        last_failure.is(&failure);
        let delay = dialer.settings.reconnect.delay(failures);
        tracing::warn!(
            address = %dialer.address,
            role = dialer.role.as_str(),
            error = %failure,
            attempt = failures,
            next_attempt_in = ?delay,
            "cannot connect to the broker"
        );
        tokio::time::sleep(delay).await;
    }
}

/// Watches the session, and makes another when it fails, until `stop`.
pub(super) async fn supervise(
    dialer: Dialer,
    first: Arc<Session>,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let role = dialer.role.as_str();
    let mut session = first;
    let mut short_lives = 0;
    loop {
        telemetry::connected(role, true);
        let up_since = Instant::now();
        let reason = tokio::select! {
            reason = watch_over(&session) => reason,
            () = stop.cancelled() => {
                session.close().await;
                break;
            }
            reason = dialer.fate.sealed() => {
                session.close().await;
                return give_up(&dialer, &state, reason);
            }
        };
        session.end(&reason);
        state.send_replace(State::Down { since: Instant::now(), reason: reason.as_str().into() });
        telemetry::connected(role, false);
        telemetry::blocked(role, false);
        tracing::warn!(
            address = %dialer.address,
            node = %session.node(),
            role,
            reason,
            generation = session.generation(),
            up = ?up_since.elapsed(),
            "lost the connection to the broker"
        );
        let next = session.generation() + 1;
        let last = session.node().clone();
        drop(session);
        // Whatever ends each connection as soon as it is made must not keep us busy making others.
        short_lives = if up_since.elapsed() < SHORT_LIFE { short_lives + 1 } else { 0 };
        let pause = match short_lives {
            0 => Duration::ZERO,
            failures => dialer.settings.reconnect.delay(failures).min(LONGEST_PAUSE),
        };
        let reconnecting = dialer.fate.bound(dialer.settings.give_up_after, async |failure| {
            reconnect(&dialer, next, &last, pause, failure).await
        });
        session = tokio::select! {
            session = reconnecting => match session {
                Ok(session) => Arc::new(session),
                Err(reason) => return give_up(&dialer, &state, reason),
            },
            () = stop.cancelled() => break,
        };
        telemetry::reconnected(role);
        state.send_replace(State::Up(Arc::clone(&session)));
    }
    state.send_replace(State::Closed);
    telemetry::connected(role, false);
}

/// Tells everybody who waits for a session that there will be none.
fn give_up(dialer: &Dialer, state: &watch::Sender<State>, reason: Failure) {
    let role = dialer.role.as_str();
    tracing::error!(address = %dialer.address, role, %reason, "the broker is given up");
    telemetry::connected(role, false);
    state.send_replace(State::GivenUp(reason));
}

/// Tries until it is connected: whatever the broker says now, it knew us before.
async fn reconnect(
    dialer: &Dialer,
    generation: u64,
    last: &Node,
    pause: Duration,
    last_failure: &LastFailure,
) -> Session {
    let begin = Instant::now();
    tokio::time::sleep(pause).await;
    let mut failures = 0;
    loop {
        let failure = match dialer.dial(generation, Some(last)).await {
            Ok(session) => {
                tracing::info!(
                    address = %dialer.address,
                    node = %session.node(),
                    role = dialer.role.as_str(),
                    generation,
                    after = ?begin.elapsed(),
                    "connected to the broker again"
                );
                return session;
            }
            Err(failure) => failure,
        };
        failures += 1;
        last_failure.is(&failure);
        let delay = dialer.settings.reconnect.delay(failures);
        let (address, role) = (&dialer.address, dialer.role.as_str());
        if failure.kind_of_connect() == TransportErrorKind::Unreachable {
            tracing::warn!(
                %address, role, error = %failure, attempt = failures, next_attempt_in = ?delay,
                "cannot connect to the broker"
            );
        } else {
            tracing::error!(
                %address, role, error = %failure, attempt = failures, next_attempt_in = ?delay,
                "the broker refuses the connection"
            );
        }
        tokio::time::sleep(delay).await;
    }
}

/// Returns, with the reason, when the session is of no use any more.
async fn watch_over(session: &Session) -> String {
    let mut events = Box::pin(session.connection.events_listener());
    // Some ends come without an event, such as a close by the broker that is no error.
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let status = session.connection.status();
    let mut last_error = String::new();
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(
                        role = session.role().as_str(), reason,
                        "the broker blocks the connection; publishing waits"
                    );
                    session.set_blocked(true);
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!(
                        role = session.role().as_str(), "the broker takes messages again"
                    );
                    session.set_blocked(false);
                }
                // Errors of a channel are told here too; they are the business of its owner.
                Some(Event::Error(error)) => last_error = error.to_string(),
                Some(_) => {}
                None => return "lapin ended".to_owned(),
            },
            reason = session.given_up() => return reason,
            _ = look.tick() => if session.is_silent(LOOK) {
                return "nothing came from the broker for twice the heartbeat".to_owned();
            },
        }
        if !status.connected() {
            return match last_error.is_empty() {
                true => "the broker closed it".to_owned(),
                false => last_error,
            };
        }
    }
}

const LOOK: Duration = Duration::from_millis(500);

/// A connection that lives shorter than this was of no use, as far as we can tell.
const SHORT_LIFE: Duration = Duration::from_millis(250);

/// Before another attempt where the broker can be reached: one connection a second keeps nobody busy, and
/// messages flow within two seconds also after cuts that follow each other closely.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
