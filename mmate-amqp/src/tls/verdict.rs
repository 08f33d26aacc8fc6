//! What a failure of TLS means.

use std::io;

use mmate_core::transport::TransportErrorKind as Kind;
use tokio_rustls::rustls::{AlertDescription as Alert, CertificateError, Error, PeerIncompatible};

/// What no waiting mends, with the reason in words; nothing if the failure may pass by itself.
pub(crate) fn judge(error: &io::Error, host: &str) -> Option<(Kind, String)> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let verdict = match error {
        Error::InvalidCertificate(reason) => {
            let text = format!("the certificate of {host} does not verify: {}", in_words(reason));
            (Kind::Untrusted, text)
        }
        Error::NoCertificatesPresented => (Kind::Untrusted, format!("{host} shows no certificate")),
        Error::InvalidMessage(_) => (
            Kind::Configuration,
            format!("{host} does not speak TLS on this port; it may be the one for amqp://"),
        ),
        Error::PeerIncompatible(reason) => (Kind::Configuration, incompatible(host, reason)),
        Error::AlertReceived(alert) => alerted(*alert, host)?,
        _ => return None,
    };
    Some(verdict)
}

fn in_words(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "no authority that is trusted has signed it (a private \
                                            authority is named with Tls::authority_file)"
            .to_owned(),
        other => other.to_string(),
    }
}

fn incompatible(host: &str, reason: &PeerIncompatible) -> String {
    format!("{host} speaks no TLS that we speak (1.2 or 1.3 is needed): {reason:?}")
}

fn alerted(alert: Alert, host: &str) -> Option<(Kind, String)> {
    let verdict = match alert {
        Alert::CertificateRequired | Alert::NoCertificate => (
            Kind::AccessRefused,
            format!("{host} wants a client certificate, and none is set ({alert:?})"),
        ),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError => (
            Kind::AccessRefused,
            format!("{host} does not accept the client certificate ({alert:?})"),
        ),
        Alert::HandshakeFailure => (
            Kind::AccessRefused,
            format!(
                "{host} ends the handshake ({alert:?}); it may want a client certificate, or share \
                 no cipher with us"
            ),
        ),
        Alert::ProtocolVersion | Alert::InsufficientSecurity => (
            Kind::Configuration,
            format!("{host} speaks no TLS that we speak, 1.2 or 1.3 ({alert:?})"),
        ),
        Alert::UnrecognisedName => (
            Kind::Configuration,
            format!("{host} is not known by that name to the server ({alert:?})"),
        ),
        _ => return None,
    };
    Some(verdict)
}
