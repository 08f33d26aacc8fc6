//! What a user sets.

use std::fmt;
use std::path::PathBuf;

/// How to speak TLS with the broker: whom to trust, and who we are.
///
/// The broker's certificate is always verified, against the host in the URL; there is no way to
/// switch that off. Without anything set, the certificate authorities of the system are trusted
/// (on Linux those of `ca-certificates`, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`).
///
/// ```no_run
/// use mmate_amqp::{Amqp, Tls};
///
/// let tls = Tls::new()
///     .authority_file("/etc/orders/rabbitmq-ca.pem")
///     .client_certificate_files("/etc/orders/client.pem", "/etc/orders/client.key");
/// let broker = Amqp::new("amqps://orders:secret@broker.example/production").tls(tls);
/// # let _ = broker;
/// ```
///
/// All certificates and keys are PEM. What is wrong with them is told when a service connects, with
/// the file and the reason. Files are read again for each connection, so that a certificate can be
/// renewed under a running service; if a renewed one cannot be used, the one before is kept.
#[derive(Clone, Default)]
#[must_use = "this does nothing until it is given to `Amqp::tls`"]
pub struct Tls {
    pub(super) authorities: Vec<Pem>,
    pub(super) identity: Option<Identity>,
    pub(super) server_name: Option<String>,
}

/// A PEM text, or where it is.
#[derive(Clone)]
pub(super) enum Pem {
    File(PathBuf),
    Text(Vec<u8>),
}

/// What we show to the broker.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: Pem,
    pub(super) key: Pem,
}

impl Tls {
    /// TLS with the certificate authorities of the system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificate authorities in this file, and no others: those of the system are not
    /// trusted any more. Given several times, each of the files counts.
    pub fn authority_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities.push(Pem::File(path.into()));
        self
    }

    /// As [`authority_file`](Self::authority_file), with the PEM text itself.
    pub fn authority_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(Pem::Text(pem.into()));
        self
    }

    /// Shows a certificate to the broker: the certificate, followed by those between it and an
    /// authority that the broker trusts, and its private key (PKCS#8, PKCS#1 or SEC1, and not
    /// encrypted). Both may be in one file.
    pub fn client_certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let (certificate, key) = (Pem::File(certificate.into()), Pem::File(key.into()));
        self.identity = Some(Identity { certificate, key });
        self
    }

    /// As [`client_certificate_files`](Self::client_certificate_files), with the PEM texts
    /// themselves.
    pub fn client_certificate_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        let (certificate, key) = (Pem::Text(certificate.into()), Pem::Text(key.into()));
        self.identity = Some(Identity { certificate, key });
        self
    }

    /// The name that the broker's certificate must have, where it is not the host in the URL: when
    /// the broker is reached through a tunnel, or by an address that is in no certificate. With
    /// several hosts it is the name of all.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Whether another look may find something else.
    pub(super) fn reads_files(&self) -> bool {
        let identity = self.identity.iter().flat_map(|id| [&id.certificate, &id.key]);
        identity.chain(&self.authorities).any(|pem| matches!(pem, Pem::File(_)))
    }
}

/// Without anything of what a PEM text holds.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities)
            .field("client_certificate", &self.identity.as_ref().map(|id| &id.certificate))
            .field("client_key", &self.identity.as_ref().map(|id| &id.key))
            .field("server_name", &self.server_name)
            .finish()
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => fmt::Debug::fmt(path, f),
            Self::Text(_) => f.write_str("(a PEM text)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_where_a_key_is_and_not_what_it_is() {
        let in_files = Tls::new().client_certificate_files("cert.pem", "key.pem");
        let shown = format!("{in_files:?}");
        assert!(shown.contains("cert.pem") && shown.contains("key.pem"), "{shown}");
        let in_texts =
            Tls::new().authority_pem("s3cret").client_certificate_pem("s3cret", "s3cret");
        let shown = format!("{in_texts:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("115, 51"), "{shown}");
        assert!(in_files.reads_files() && !in_texts.reads_files());
    }
}
