//! Clients that speak TLS and cost little, so that the server is what limits.

mod flood;
mod loader;
mod session;

pub use flood::Flood;
pub use loader::{Done, Job, SecureLoader, Then};

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};
use tempfile::TempDir;

/// A self-signed certificate for [`NAME`] with its key, as PEM files.
pub struct Certificate {
    folder: TempDir,
}

/// What a client is willing to speak. It offers nothing else, and P-256 as the only group, so that
/// all servers do the same work.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The one version.
    pub version: &'static SupportedProtocolVersion,
    /// The one suite.
    pub suite: SupportedCipherSuite,
    /// Whether to come back with what an earlier handshake left.
    pub resumption: Resume,
}

/// How a client comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// As a stranger: each handshake is full.
    Never,
    /// By session id, as BearSSL does (TLS 1.2 only).
    SessionId,
    /// By ticket.
    Ticket,
}

impl Certificate {
    /// One with a key on P-256.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn ecdsa() -> Result<Self> {
        let certificate = Self { folder: tempfile::tempdir()? };
        let key = rcgen::KeyPair::generate()?;
        let signed = rcgen::CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
        std::fs::write(certificate.pem(), signed.pem())?;
        std::fs::write(certificate.key(), key.serialize_pem())?;
        Ok(certificate)
    }

    /// One with an RSA key of 2048 bits; `None` if there is no `openssl` to make it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn rsa() -> Result<Option<Self>> {
        let certificate = Self { folder: tempfile::tempdir()? };
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args([
                "-subj",
                &format!("/CN={NAME}"),
                "-addext",
                &format!("subjectAltName=DNS:{NAME}"),
            ])
            .arg("-out")
            .arg(certificate.pem())
            .arg("-keyout")
            .arg(certificate.key())
            .stdin(Stdio::null())
            .output();
        Ok(output.is_ok_and(|output| output.status.success()).then_some(certificate))
    }

    /// The file with the certificate.
    #[must_use]
    pub fn pem(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// The file with its key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}

impl Terms {
    /// TLS 1.3, AES-128-GCM, full handshakes.
    #[must_use]
    pub fn tls13() -> Self {
        let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
        Self { version: &version::TLS13, suite, resumption: Resume::Never }
    }

    /// TLS 1.3, ChaCha20-Poly1305, full handshakes.
    #[must_use]
    pub fn tls13_chacha20() -> Self {
        Self { suite: cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, ..Self::tls13() }
    }

    /// TLS 1.2, ECDHE-ECDSA-AES128-GCM, full handshakes.
    #[must_use]
    pub fn tls12() -> Self {
        let suite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
        Self { version: &version::TLS12, suite, resumption: Resume::Never }
    }

    /// TLS 1.2, ECDHE-RSA-AES128-GCM, full handshakes.
    #[must_use]
    pub fn tls12_rsa() -> Self {
        Self { suite: cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, ..Self::tls12() }
    }

    /// The same, coming back.
    #[must_use]
    pub fn resumed(self, resumption: Resume) -> Self {
        Self { resumption, ..self }
    }

    /// A client of its own memory, that takes this certificate and no other one.
    ///
    /// # Errors
    /// If the suite is not one of the version, or the certificate cannot be read.
    pub fn client(&self, certificate: &Certificate) -> Result<Arc<ClientConfig>> {
        let provider = CryptoProvider {
            cipher_suites: vec![self.suite],
            kx_groups: vec![kx_group::SECP256R1],
            ..ring::default_provider()
        };
        let der = CertificateDer::from_pem_file(certificate.pem()).context("no certificate")?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[self.version])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(der)))
            .with_no_client_auth();
        config.resumption = self.resumption.memory();
        Ok(Arc::new(config))
    }
}

impl Resume {
    /// An empty one.
    fn memory(self) -> Resumption {
        let remembering = Resumption::in_memory_sessions(8);
        match self {
            Self::Never => Resumption::disabled(),
            Self::SessionId => remembering.tls12_resumption(Tls12Resumption::SessionIdOnly),
            Self::Ticket => remembering,
        }
    }
}

/// Takes one certificate without a look at signatures: those would cost the client as much as the
/// server, on the CPU that has to keep the server busy.
#[derive(Debug)]
struct Pinned(CertificateDer<'static>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.0 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("the server shows another certificate".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA256,
        ]
    }
}

/// Whom clients ask for.
pub const NAME: &str = "thinx.cloud";
