//! What goes wrong on the way to the broker, in words of ours.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use mmate_core::transport::{TransportError, TransportErrorKind};

/// Why something that was asked of the broker was not done.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// lapin or the broker said so.
    Broker(lapin::Error),
    /// There was no answer within this time.
    NoAnswer(Duration),
    /// The connection that it was asked on is gone.
    Lost,
    /// The broker ended the connection for an exchange type that it does not know.
    UnknownExchangeType(String),
    /// The connection was closed by us.
    Closed,
    /// There is no way to the broker at the moment.
    NoWay(String),
    /// There is none, and waiting does not change that.
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "only TLS is refused before lapin is asked")
    )]
    Refused(Refusal),
    /// There was none for as long as we were to wait.
    GivenUp { after: Duration, last: Option<String> },
}

/// Something on the way to the broker that waiting does not mend. It is an error of its own, so that
/// it comes through lapin too.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) kind: TransportErrorKind,
    pub(crate) reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

impl Failure {
    /// What a caller of ours shall make of it.
    pub(crate) fn kind(&self) -> TransportErrorKind {
        use TransportErrorKind as Kind;
        let error = match self {
            Self::Broker(error) => error,
            Self::NoAnswer(_) | Self::Lost | Self::NoWay(_) | Self::GivenUp { .. } => {
                return Kind::Unreachable;
            }
            Self::Refused(refusal) => return refusal.kind,
            Self::UnknownExchangeType(_) => return Kind::Configuration,
            Self::Closed => return Kind::Closed,
        };
        match error.kind() {
            ErrorKind::ProtocolError(error) => match error.kind() {
                // An exclusive consumer is refused with the code for a missing permission.
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                    if error.get_message().as_str().contains("exclusive use") =>
                {
                    Kind::Locked
                }
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Kind::Forbidden,
                AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Kind::NotFound,
                AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => Kind::Locked,
                AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Kind::Mismatch,
                // The broker is shutting down, or an operator closed the connection.
                AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED) => Kind::Unreachable,
                _ => Kind::Other,
            },
            ErrorKind::IOError(_)
            | ErrorKind::MissingHeartbeatError
            | ErrorKind::InvalidConnectionState(_)
            | ErrorKind::InvalidChannelState(..)
            | ErrorKind::InvalidChannel(_) => Kind::Unreachable,
            _ => Kind::Other,
        }
    }

    /// As [`kind`](Self::kind), for an attempt to connect, where the codes mean other things.
    pub(crate) fn kind_of_connect(&self) -> TransportErrorKind {
        if let Some(refusal) = self.refusal() {
            return refusal.kind;
        }
        if let Self::Broker(error) = self
            && let ErrorKind::ProtocolError(error) = error.kind()
        {
            let text = error.get_message().as_str();
            // A limit of connections, or a virtual host that is just restarting, comes with the
            // code for one that does not exist (RabbitMQ, rabbit_reader).
            let passes = text.ends_with("is reached") || text.ends_with("is down");
            match error.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                    if !passes =>
                {
                    return TransportErrorKind::AccessRefused;
                }
                _ => {}
            }
        }
        match self.kind() {
            TransportErrorKind::Closed => TransportErrorKind::Closed,
            _ => TransportErrorKind::Unreachable,
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Broker(error) => match error.kind() {
                ErrorKind::IOError(error) => error.get_ref()?.downcast_ref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the broker closed the channel for it, so that the connection still stands.
    pub(crate) fn is_of_the_channel(&self) -> bool {
        matches!(self, Self::Broker(error) if error.is_amqp_soft_error())
    }

    /// The error that a caller gets; `attempted` reads after "failed to".
    pub(crate) fn into_error(self, attempted: impl Into<String>) -> TransportError {
        TransportError::new(self.kind(), attempted).caused_by(self.to_string())
    }
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => match error.kind() {
                // "protocol error: AMQP soft error: …" says less with more words.
                ErrorKind::ProtocolError(error) => f.write_str(error.get_message().as_str()),
                ErrorKind::IOError(error) => write!(f, "{error}"),
                _ => write!(f, "{error}"),
            },
            Self::NoAnswer(limit) => write!(f, "no answer within {limit:?}"),
            Self::Lost => f.write_str("the connection was lost"),
            Self::UnknownExchangeType(said) => f.write_str(said),
            Self::Closed => f.write_str("the connection was closed"),
            Self::NoWay(reason) => f.write_str(reason),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::GivenUp { after, last } => {
                write!(f, "given up after {after:?} without a connection")?;
                match last {
                    Some(last) => write!(f, "; the last attempt: {last}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Waits for lapin, which may wait for ever after its connection has failed.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(Failure::Broker),
        Err(_) => Err(Failure::NoAnswer(limit)),
    }
}
