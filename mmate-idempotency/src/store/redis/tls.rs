//! TLS between us and Redis.

use std::fmt;

use redis::{
    Client, ClientTlsConfig, ConnectionInfo, ErrorKind, RedisError, RedisResult, TlsCertificates,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

use super::{RedisStore, place};
use crate::store::StoreError;

/// Connections to Redis whose certificates are not those of everybody: a private authority, or a
/// certificate of ours that the server asks for.
///
/// Where the server's certificate comes from an authority that the system trusts, a URL with
/// `rediss://` is enough. A certificate is always verified, against the host in the URL.
///
/// ```no_run
/// use mmate_idempotency::RedisTls;
/// # async fn show() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisTls::new()
///     .authority_pem(std::fs::read("/etc/shop/redis-ca.pem")?)
///     .client_certificate_pem(
///         std::fs::read("/etc/shop/client.pem")?,
///         std::fs::read("/etc/shop/client.key")?,
///     )
///     .connect("rediss://shop:secret@redis.example:6380/")
///     .await?;
/// # let _ = store; Ok(()) }
/// ```
#[derive(Clone, Default)]
#[must_use = "this does nothing until it connects"]
pub struct RedisTls {
    authority: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl RedisTls {
    /// TLS with the certificate authorities of the system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificate authorities in this PEM text, and no others: those of the system are
    /// not trusted any more.
    pub fn authority_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authority = Some(pem.into());
        self
    }

    /// Shows a certificate to the server: the certificate, followed by those between it and an
    /// authority that the server trusts, and its private key, both as PEM.
    pub fn client_certificate_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// As [`RedisStore::connect`], to a URL with `rediss://`.
    ///
    /// # Errors
    /// As there; and when a certificate cannot be read, or the server's does not verify.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<RedisStore, StoreError> {
        RedisStore::on(place::node(url.as_ref(), &self)?).await
    }

    /// As [`RedisStore::sentinel`], to URLs with `rediss://`. The servers are spoken with in the
    /// same way as the Sentinels.
    ///
    /// # Errors
    /// As there; and when a certificate cannot be read, or one of theirs does not verify.
    pub async fn sentinel<U: AsRef<str>>(
        self,
        master_name: impl AsRef<str>,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<RedisStore, StoreError> {
        RedisStore::on(place::sentinel(master_name.as_ref(), urls, &self)?).await
    }

    /// As [`RedisStore::cluster`], to URLs with `rediss://`.
    ///
    /// # Errors
    /// As there; and when a certificate cannot be read, or one of theirs does not verify.
    pub async fn cluster<U: AsRef<str>>(
        self,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<RedisStore, StoreError> {
        RedisStore::on(place::cluster(urls, &self)?).await
    }

    pub(super) fn is_default(&self) -> bool {
        self.authority.is_none() && self.identity.is_none()
    }

    pub(super) fn certificates(&self) -> TlsCertificates {
        let client_tls = self.identity.clone();
        TlsCertificates {
            client_tls: client_tls
                .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
            root_cert: self.authority.clone(),
        }
    }

    /// The address, with what it is spoken with.
    pub(super) fn secure(&self, info: ConnectionInfo) -> RedisResult<ConnectionInfo> {
        // rustls asks which implementation is to be used, unless the process has said so or there is one only.
        if CryptoProvider::get_default().is_none() {
            // Somebody else may just have done it.
            let _ = ring::default_provider().install_default();
        }
        let client = Client::build_with_tls(info, self.certificates()).map_err(|error| {
            let text = "a certificate or its key cannot be read";
            RedisError::from((ErrorKind::InvalidClientConfig, text, error.to_string()))
        })?;
        Ok(client.get_connection_info().clone())
    }
}

impl fmt::Debug for RedisTls {
    /// Without anything of what a PEM text holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTls")
            .field("has_authority", &self.authority.is_some())
            .field("has_client_certificate", &self.identity.is_some())
            .finish()
    }
}
