//! Certificates, good and bad.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::rabbitmq::TlsListener;

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is taken apart")]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// One of this name.
    ///
    /// # Panics
    /// If it cannot be made, as does everything here.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect(MADE);
        let pem = params.self_signed(&key).expect(MADE).pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A certificate for a server of this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Pair {
        self.sign(CertificateParams::new([name.to_owned()]).expect(MADE))
    }

    /// One that was good last year.
    #[must_use]
    pub fn expired_server(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).expect(MADE);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    /// A certificate for a client of this name.
    #[must_use]
    pub fn client(&self, name: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params)
    }

    /// What a broker that shows this certificate is started with; it asks clients for nothing.
    #[must_use]
    pub fn listener(&self, shown: Pair) -> TlsListener {
        let Pair { certificate, key } = shown;
        TlsListener { certificate, key, client_authorities: None }
    }

    /// As above; each client has to show a certificate of ours.
    #[must_use]
    pub fn strict_listener(&self, shown: Pair) -> TlsListener {
        TlsListener { client_authorities: Some(self.pem()), ..self.listener(shown) }
    }

    fn sign(&self, mut params: CertificateParams) -> Pair {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect(MADE);
        let certificate = params.signed_by(&key, &self.issuer).expect(MADE);
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

const MADE: &str = "certificates can be made";
