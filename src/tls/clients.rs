//! Certificates of clients: whom listeners that ask for them trust.

use std::path::Path;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::certificates::Certificates;
use super::pem;
use crate::failure::Failure;
use crate::listen::ClientCertificates;

/// The authorities that were read from a file.
#[derive(Debug)]
pub(crate) struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Tells one set of authorities from another, on all servers alike.
    hash: [u8; 8],
}

impl Authorities {
    /// Reads them. Fails with what is wrong with the file.
    pub(super) fn load(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        let mut context = Context::new(&SHA256);
        for certificate in pem::certificates(path)? {
            context.update(&certificate);
            roots.add(certificate).map_err(|error| {
                let error = format!("a certificate in {} is no authority: {error}", path.display());
                Failure::failed(error).hint("`tls_client_ca` names those that sign clients' ones")
            })?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let verifier = verifier.build().map_err(|error| {
            Failure::failed(format!(
                "the authorities in {} cannot be used: {error}",
                path.display()
            ))
        })?;
        let mut hash = [0; 8];
        hash.copy_from_slice(&context.finish().as_ref()[..8]);
        Ok(Self { verifier, hash })
    }

    pub(super) fn hash(&self) -> [u8; 8] {
        self.hash
    }
}

/// Asks the authorities that are current at each handshake.
#[derive(Debug)]
pub(super) struct Verifier {
    certificates: Arc<Certificates>,
    asked: ClientCertificates,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(
        certificates: Arc<Certificates>,
        asked: ClientCertificates,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { certificates, asked, provider }
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.asked != ClientCertificates::Off
    }

    fn client_auth_mandatory(&self) -> bool {
        self.asked == ClientCertificates::Required
    }

    /// None: a client shows the certificate that it has, and small ones need not read the list.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.certificates.current().authorities {
            Some(authorities) => {
                authorities.verifier.verify_client_cert(end_entity, intermediates, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::ServerConfig;
    use rustls::version::{TLS12, TLS13};

    use super::super::certificates::Files;
    use super::super::made::{Authority, Client, Made, resumption};
    use super::super::{provider, server_config};
    use super::*;

    fn serving(certificates: &Arc<Certificates>, asked: &str) -> Arc<ServerConfig> {
        let listen = format!("127.0.0.1:0,client_certificates={asked}");
        let listen = listen.parse().expect("a listener");
        server_config(&listen, certificates, &resumption()).expect("a configuration")
    }

    #[test]
    fn a_client_certificate_must_be_good_and_may_be_missing_where_it_is_optional() {
        let (made, ours, theirs) = (Made::new(), Authority::new("ours"), Authority::new("theirs"));
        let client_ca = Some(made.write("ca.pem", &ours.pem));
        let pairs = vec![made.ecdsa("a", &["a.example"])];
        let certificates =
            Certificates::load(Files { pairs, client_ca }, provider()).expect("loaded");
        let (good, bad) = (Arc::new(ours.sign()), Arc::new(theirs.sign()));
        for (asked, certificate, fits) in [
            ("off", None, true),
            ("off", Some(&bad), true),
            ("optional", None, true),
            ("optional", Some(&good), true),
            ("optional", Some(&bad), false),
            ("required", None, false),
            ("required", Some(&good), true),
            ("required", Some(&bad), false),
        ] {
            let config = serving(&certificates, asked);
            for versions in [&[&TLS12], &[&TLS13]] {
                let client = Client {
                    versions: versions.to_vec(),
                    certificate: certificate.cloned(),
                    ..Client::new(None)
                };
                let outcome = client.shake(&config).map(drop);
                assert_eq!(outcome.is_ok(), fits, "{asked} {versions:?}: {outcome:?}");
            }
        }
    }

    #[test]
    fn authorities_are_replaced_with_the_certificates() {
        let (made, old, new) = (Made::new(), Authority::new("old"), Authority::new("new"));
        let client_ca = Some(made.write("ca.pem", &old.pem));
        let pairs = vec![made.ecdsa("a", &["a.example"])];
        let certificates =
            Certificates::load(Files { pairs, client_ca }, provider()).expect("loaded");
        let config = serving(&certificates, "required");
        let client = |authority: &Authority| Client {
            certificate: Some(Arc::new(authority.sign())),
            ..Client::new(None)
        };
        let (old_client, new_client) = (client(&old), client(&new));
        assert!(old_client.shake(&config).is_ok() && new_client.shake(&config).is_err());
        made.write("ca.pem", &new.pem);
        assert!(certificates.have_changed());
        certificates.reload().expect("good");
        assert!(old_client.shake(&config).is_err() && new_client.shake(&config).is_ok());
        made.write("ca.pem", [old.pem.as_str(), new.pem.as_str()].concat());
        certificates.reload().expect("good");
        assert!(old_client.shake(&config).is_ok() && new_client.shake(&config).is_ok());
    }
}
