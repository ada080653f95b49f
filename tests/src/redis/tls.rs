//! TLS for a test's Redis: an authority of its own, and certificates signed by it.

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::RedisServer;

/// Whether a server speaks TLS, and then nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Plain TCP.
    #[default]
    Off,
    /// The server shows a certificate for `localhost` and `127.0.0.1`.
    Server,
    /// Clients must show one, too.
    Mutual,
}

impl Tls {
    pub(super) fn config(self, directory: &Path) -> String {
        let clients = match self {
            Self::Off => return String::new(),
            Self::Server => "no",
            Self::Mutual => "yes",
        };
        let path = |name| directory.join(name).display().to_string();
        format!(
            "tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients {clients}",
            path(SERVER_CERTIFICATE),
            path(SERVER_KEY),
            path(AUTHORITY),
        )
    }
}

impl RedisServer {
    /// The certificate of the authority that signed the server's, in PEM. Only with TLS.
    #[must_use]
    pub fn authority_file(&self) -> PathBuf {
        self.directory().join(AUTHORITY)
    }

    /// A certificate and its key for a client, in PEM. Only with TLS.
    #[must_use]
    pub fn client_files(&self) -> (PathBuf, PathBuf) {
        let directory = self.directory();
        (directory.join(CLIENT_CERTIFICATE), directory.join(CLIENT_KEY))
    }
}

/// Makes an authority, and signs a certificate for a server and one for a client.
pub(super) fn write_certificates(directory: &Path) {
    let write = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).expect("written");
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
    let key = KeyPair::generate().expect("a key");
    write(AUTHORITY, params.self_signed(&key).expect("signed").pem());
    let issuer = Issuer::new(params, key);
    for (certificate, key_file) in
        [(SERVER_CERTIFICATE, SERVER_KEY), (CLIENT_CERTIFICATE, CLIENT_KEY)]
    {
        let names = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        write(certificate, params.signed_by(&key, &issuer).expect("signed").pem());
        write(key_file, key.serialize_pem());
    }
}

/// A client's side, with the authority and the client's certificate in `directory`.
pub(super) fn connect(
    stream: TcpStream,
    directory: &Path,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let certificate = |name| CertificateDer::from_pem_file(directory.join(name));
    let mut roots = RootCertStore::empty();
    let authority = certificate(AUTHORITY).map_err(io::Error::other)?;
    roots.add(authority).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(directory.join(CLIENT_KEY)).map_err(io::Error::other)?;
    let own = certificate(CLIENT_CERTIFICATE).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config.with_root_certificates(roots).with_client_auth_cert(vec![own], key)
        })
        .map_err(io::Error::other)?;
    let name = Ipv4Addr::LOCALHOST.into();
    let name = rustls::pki_types::ServerName::IpAddress(name);
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

const AUTHORITY: &str = "authority.pem";
const SERVER_CERTIFICATE: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const CLIENT_CERTIFICATE: &str = "client.pem";
const CLIENT_KEY: &str = "client.key";
