//! The runtime that lapin runs on: tokio's, with TCP streams of ours.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};

use super::mend::Mended;
use super::plug::Plug;

/// tokio, as far as lapin is concerned, for one connection.
#[derive(Debug, Clone)]
pub(super) struct Kit {
    tokio: Tokio,
    plug: Plug,
    connect_timeout: Duration,
}

impl Kit {
    /// A kit whose connection ends when the plug is pulled.
    pub(super) fn new(plug: Plug, connect_timeout: Duration) -> Self {
        Self { tokio: Tokio::current(), plug, connect_timeout }
    }
}

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.tokio.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        run: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn_blocking(run)
    }
}

impl Reactor for Kit {
    type TcpStream = Mended<<Tokio as Reactor>::TcpStream>;
    type Sleep = <Tokio as Reactor>::Sleep;

    // async-rs 0.8 does not show the trait that it asks of the socket here, so there is nothing to
    // register it with. lapin never does.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.tokio.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.tokio.tcp_connect_addr(address);
        let (plug, limit) = (self.plug.clone(), self.connect_timeout);
        async move {
            let too_long = |_| {
                let text = format!("no TCP connection to {address} within {limit:?}");
                io::Error::new(io::ErrorKind::TimedOut, text)
            };
            let stream = tokio::time::timeout(limit, connecting).await.map_err(too_long)??;
            plug.put(second_handle(stream.get_ref())?);
            Ok(Mended::new(stream))
        }
    }
}

#[cfg(unix)]
fn second_handle(stream: &impl std::os::fd::AsFd) -> io::Result<TcpStream> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn second_handle(stream: &impl std::os::windows::io::AsSocket) -> io::Result<TcpStream> {
    Ok(stream.as_socket().try_clone_to_owned()?.into())
}
