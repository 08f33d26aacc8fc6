//! From PEM to what rustls wants.

use std::borrow::Cow;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::options::{Identity, Pem, Tls};

/// Reads all that is named, or says what cannot be used, and why.
pub(super) fn load(options: &Tls) -> Result<ClientConfig, String> {
    if let Some(name) = &options.server_name {
        ServerName::try_from(name.as_str())
            .map_err(|error| format!("the TLS server name {name:?} cannot be used: {error}"))?;
    }
    let roots = match options.authorities.as_slice() {
        [] => system_roots()?,
        own => own_roots(own)?,
    };
    // Named here, since a process may have another default provider, or two and hence none.
    let building = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))?
        .with_root_certificates(roots);
    match &options.identity {
        None => Ok(building.with_no_client_auth()),
        Some(Identity { certificate, key }) => {
            let chain = certificates(certificate, "client certificate")?;
            let private_key = private_key(key)?;
            building.with_client_auth_cert(chain, private_key).map_err(|error| {
                let (certificate, key) = (certificate.place(), key.place());
                format!(
                    "the client certificate {certificate} and the key {key} do not fit together: \
                     {error}"
                )
            })
        }
    }
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have one or another that nobody can read.
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
    Err(format!(
        "the system has no certificate authorities{why}; install its ca-certificates, or name your \
         own authority with Tls::authority_file"
    ))
}

fn own_roots(authorities: &[Pem]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for pem in authorities {
        for certificate in certificates(pem, "certificate authority")? {
            roots.add(certificate).map_err(|error| {
                format!("the certificate authority {} cannot be used: {error}", pem.place())
            })?;
        }
    }
    Ok(roots)
}

/// All certificates in a PEM text; at least one.
fn certificates(pem: &Pem, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |why: String| format!("the {what} {} cannot be used: {why}", pem.place());
    let text = pem.read().map_err(unusable)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = read.map_err(|error| unusable(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(unusable("there is no certificate in it (PEM is wanted)".to_owned())),
        false => Ok(certificates),
    }
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, String> {
    let unusable = |why: &str| format!("the client key {} cannot be used: {why}", pem.place());
    let text = pem.read().map_err(|why| unusable(&why))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound if contains(&text, b"ENCRYPTED PRIVATE KEY") => {
            unusable("it is encrypted")
        }
        PemError::NoItemsFound => unusable("there is no private key in it (PEM is wanted)"),
        // What is malformed about a key is shown by some with a piece of it.
        _ => unusable("it is no well-formed PEM"),
    })
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

impl Pem {
    fn read(&self) -> Result<Cow<'_, [u8]>, String> {
        match self {
            Self::File(path) => std::fs::read(path).map(Cow::Owned).map_err(|e| e.to_string()),
            Self::Text(text) => Ok(Cow::Borrowed(text)),
        }
    }

    fn place(&self) -> String {
        match self {
            Self::File(path) => format!("in {}", path.display()),
            Self::Text(_) => "given as text".to_owned(),
        }
    }
}
