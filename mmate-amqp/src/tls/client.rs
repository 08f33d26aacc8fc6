//! Our side of TLS.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::load::load;
use super::options::Tls;

/// Our side of TLS, for any number of connections.
#[derive(Debug)]
pub(crate) struct Client {
    options: Tls,
    /// What could be used last.
    config: Mutex<Arc<ClientConfig>>,
}

impl Client {
    /// Reads what the options name. The error says what cannot be used.
    pub(crate) async fn new(options: Tls) -> Result<Self, String> {
        let config = load_aside(&options).await?;
        Ok(Self { options, config: Mutex::new(config) })
    }

    /// Makes a connection secure: returns when the server has shown that it is `host`.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config().await);
        let name = self.options.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        connector.connect(name, stream).await
    }

    /// With certificates that may have been renewed in the meantime.
    async fn config(&self) -> Arc<ClientConfig> {
        let renewed = match self.options.reads_files() {
            true => load_aside(&self.options).await.map(Some),
            false => Ok(None),
        };
        // Nothing panics while it is held.
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        match renewed {
            Ok(Some(renewed)) => *config = renewed,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error, "certificates cannot be read again; the old ones are kept");
            }
        }
        Arc::clone(&config)
    }
}

/// Files are read where that may take a while.
async fn load_aside(options: &Tls) -> Result<Arc<ClientConfig>, String> {
    let options = options.clone();
    let loaded = tokio::task::spawn_blocking(move || load(&options)).await;
    loaded.map_err(|error| format!("certificates cannot be read: {error}"))?.map(Arc::new)
}
