//! The settings of TLS: what of them goes together.

use std::collections::HashSet;
use std::path::PathBuf;

use super::certificates::Files;
use super::pem::PairFiles;
use crate::config::Settings;
use crate::failure::Failure;
use crate::listen::ClientCertificates;

impl Settings {
    /// Can devices reach a server with these settings at all, and each place only once?
    pub(crate) fn check_listeners(&self) -> Result<(), Failure> {
        let Some(first) = self.tls_listen.first() else {
            return match self.listen.address() {
                Some(_) => Ok(()),
                None => Err(Failure::usage("`listen` is off, and there is no `tls_listen`").hint(
                    "name a place where devices connect: --listen 0.0.0.0:7442 or --tls-listen \
                     0.0.0.0:7443",
                )),
            };
        };
        if self.tls_cert.is_empty() {
            let error = format!("`tls_listen` {first} needs a certificate");
            return Err(Failure::usage(error).hint(
                "name one with --cert and its key with --key (`tls_cert`, `tls_key`); `otter cert \
                 self-signed` makes a pair to try",
            ));
        }
        let asks = |asked| self.tls_listen.iter().find(|l| l.client_certificates == asked);
        let asking =
            asks(ClientCertificates::Required).or_else(|| asks(ClientCertificates::Optional));
        if let (Some(listen), None) = (asking, &self.tls_client_ca) {
            let error = format!("`tls_listen` {listen} needs `tls_client_ca`");
            return Err(Failure::usage(error)
                .hint("it names a PEM file of the authorities that sign certificates of clients"));
        }
        let mut seen = HashSet::new();
        let places = self.tls_listen.iter().map(|listen| listen.address);
        let mut places = places.chain(self.listen.address()).filter(|place| place.port() != 0);
        match places.find(|place| !seen.insert(*place)) {
            Some(place) => {
                let error = format!("two listeners are to listen on {place}");
                Err(Failure::usage(error)
                    .hint("give each of `listen` and `tls_listen` its own port"))
            }
            None => self.tls_files().map(drop),
        }
    }

    /// The files of certificates and keys, in pairs.
    pub(crate) fn tls_files(&self) -> Result<Files, Failure> {
        let (certificates, keys) = (&self.tls_cert, &self.tls_key);
        // Without any key the certificates' files hold them, too.
        let keys = if keys.is_empty() { certificates } else { keys };
        if keys.len() != certificates.len() {
            let files = |n: usize| if n == 1 { "1 file".to_owned() } else { format!("{n} files") };
            let error = format!(
                "`tls_cert` names {}, and `tls_key` {}",
                files(certificates.len()),
                files(keys.len())
            );
            return Err(Failure::usage(error).hint(
                "name a key for each certificate, in the same order; or none, if each file of a \
                 certificate holds its key, too",
            ));
        }
        let pair = |(certificate, key): (&PathBuf, &PathBuf)| PairFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let pairs = certificates.iter().zip(keys).map(pair).collect();
        Ok(Files { pairs, client_ca: self.tls_client_ca.clone() })
    }

    /// Settings without effect, for the log.
    pub(crate) fn unused(&self) -> Vec<&'static str> {
        let mut unused = Vec::new();
        let without = self.tls_listen.is_empty();
        if without && !(self.tls_cert.is_empty() && self.tls_key.is_empty()) {
            unused.push("there is a certificate but no `tls_listen`: nobody is shown it");
        }
        let off = |l: &crate::listen::TlsListen| l.client_certificates == ClientCertificates::Off;
        if self.tls_client_ca.is_some() && self.tls_listen.iter().all(off) {
            unused.push(
                "there is a `tls_client_ca`, but no `tls_listen` asks for client_certificates",
            );
        }
        unused
    }
}
