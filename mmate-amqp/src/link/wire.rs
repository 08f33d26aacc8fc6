//! The way to a node: its name, a TCP connection, and TLS on it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};
use mmate_core::transport::TransportErrorKind;
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::mend::Mended;
use super::plug::Plug;
use crate::address::Node;
use crate::failure::{Failure, Refusal};
#[cfg(feature = "tls")]
use crate::tls;

/// What lapin reads from and writes to.
pub(super) type Stream = Mended<Wire>;

/// What is between TCP and AMQP.
#[derive(Debug, Clone)]
pub(crate) enum Security {
    /// Nothing.
    None,
    #[cfg(feature = "tls")]
    Tls(Arc<tls::Client>),
}

/// A connection to a node, secure or not.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Layers,
    /// As a user writes it.
    node: String,
    /// Whether anything has been read yet.
    greeted: bool,
}

#[derive(Debug)]
enum Layers {
    Tcp(Compat<TcpStream>),
    #[cfg(feature = "tls")]
    Tls(Box<Compat<tokio_rustls::client::TlsStream<TcpStream>>>),
}

/// Connects to a node, at whichever of its IP addresses answers first of all. Each has `limit` for
/// TCP and TLS together.
pub(super) async fn connect(
    node: &Node,
    security: &Security,
    plug: &Plug,
    limit: Duration,
) -> Result<Stream, Failure> {
    let looking_up = tokio::net::lookup_host((node.host.as_str(), node.port));
    let addresses = match tokio::time::timeout(limit, looking_up).await {
        Ok(found) => {
            found.map_err(|error| no_way(format!("cannot look up {}: {error}", node.host)))?
        }
        Err(_) => return Err(no_way(format!("cannot look up {} within {limit:?}", node.host))),
    };
    let mut last = no_way(format!("{} has no address", node.host));
    for address in addresses {
        let connecting = connect_to(address, node, security, plug);
        last = match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(wire)) => return Ok(Mended::new(wire, plug.intake().clone())),
            Ok(Err(failure)) => failure,
            Err(_) => {
                let what = if security.is_none() { "TCP" } else { "TLS" };
                no_way(format!("no {what} connection to {address} within {limit:?}"))
            }
        };
    }
    Err(last)
}

fn no_way(reason: String) -> Failure {
    Failure::NoWay(reason)
}

async fn connect_to(
    address: SocketAddr,
    node: &Node,
    security: &Security,
    plug: &Plug,
) -> Result<Wire, Failure> {
    let failed = |error: io::Error| no_way(format!("no connection to {address}: {error}"));
    let tcp = TcpStream::connect(address).await.map_err(failed)?;
    // lapin writes whole frames; waiting to fill segments only delays them.
    tcp.set_nodelay(true).map_err(failed)?;
    plug.put(second_handle(&tcp).map_err(failed)?);
    let stream = match security {
        Security::None => Layers::Tcp(tcp.compat()),
        #[cfg(feature = "tls")]
        Security::Tls(client) => {
            let secured =
                client.secure(tcp, &node.host).await.map_err(|error| {
                    match tls::judge(&error, &node.to_string()) {
                        Some((kind, reason)) => Failure::Refused(Refusal { kind, reason }),
                        None => no_way(format!("no TLS connection to {address}: {error}")),
                    }
                })?;
            Layers::Tls(Box::new(secured.compat()))
        }
    };
    Ok(Wire { stream, node: node.to_string(), greeted: false })
}

#[cfg(unix)]
fn second_handle(stream: &impl std::os::fd::AsFd) -> io::Result<std::net::TcpStream> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn second_handle(stream: &impl std::os::windows::io::AsSocket) -> io::Result<std::net::TcpStream> {
    Ok(stream.as_socket().try_clone_to_owned()?.into())
}

impl Security {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// The types of the records that a TLS server answers clear text with: an alert, as a rule, or a
/// handshake message (RFC 8446, 5.1). No AMQP begins so.
const TLS_RECORDS: [u8; 2] = [21, 22];

impl Wire {
    /// What is wrong with the first bytes that came.
    fn check_greeting(&self, bytes: &[u8]) -> io::Result<()> {
        match (&self.stream, bytes.first()) {
            (Layers::Tcp(_), Some(first)) if TLS_RECORDS.contains(first) => {
                let reason = format!("{} speaks TLS on this port: use amqps://", self.node);
                let kind = TransportErrorKind::Configuration;
                Err(io::Error::new(io::ErrorKind::InvalidData, Refusal { kind, reason }))
            }
            _ => Ok(()),
        }
    }

    /// An error in words of ours, where there are such. A server tells only after the handshake
    /// that it does not like our certificate (RFC 8446, 4.4.2.4).
    fn in_words(&self, error: io::Error) -> io::Error {
        #[cfg(feature = "tls")]
        if let Some((kind, reason)) = tls::judge(&error, &self.node) {
            return io::Error::new(error.kind(), Refusal { kind, reason });
        }
        error
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let read = match &mut this.stream {
            Layers::Tcp(stream) => Pin::new(stream).poll_read(cx, target),
            #[cfg(feature = "tls")]
            Layers::Tls(stream) => Pin::new(stream).poll_read(cx, target),
        };
        let count = ready!(read).map_err(|error| this.in_words(error))?;
        if !this.greeted {
            this.check_greeting(&target[..count])?;
            this.greeted = true;
        }
        Poll::Ready(Ok(count))
    }
}

macro_rules! hand_on {
    ($wire:expr, $call:ident($($argument:expr),*)) => {
        match &mut $wire.get_mut().stream {
            Layers::Tcp(stream) => Pin::new(stream).$call($($argument),*),
            #[cfg(feature = "tls")]
            Layers::Tls(stream) => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        hand_on!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        hand_on!(self, poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        hand_on!(self, poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        hand_on!(self, poll_close(cx))
    }
}
