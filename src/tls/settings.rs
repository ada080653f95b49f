//! The settings of TLS: what of them goes together.

use std::collections::HashSet;
use std::path::PathBuf;

use super::certificates::Files;
use super::pem::PairFiles;
use crate::config::Settings;
use crate::failure::Failure;
use crate::listen::{ClientCertificates, TlsListen};

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
        let off = |l: &TlsListen| l.client_certificates == ClientCertificates::Off;
        if self.tls_client_ca.is_some() && self.tls_listen.iter().all(off) {
            unused.push(
                "there is a `tls_client_ca`, but no `tls_listen` asks for client_certificates",
            );
        }
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str, tls: &[&str], certificates: usize, keys: usize) -> Settings {
        let files = |n: usize| (0..n).map(|i| PathBuf::from(format!("{i}.pem"))).collect();
        let mut settings = Settings::default();
        settings.listen = listen.parse().expect("a listener");
        settings.tls_listen = tls.iter().map(|text| text.parse().expect("a listener")).collect();
        settings.tls_cert = files(certificates);
        settings.tls_key = files(keys);
        settings
    }

    #[test]
    fn listeners_and_certificates_must_go_together() {
        for (settings, words) in [
            (settings("off", &[], 0, 0), "`listen` is off, and there is no `tls_listen`"),
            (settings("off", &["0.0.0.0:1"], 0, 0), "otter cert self-signed"),
            (settings("0.0.0.0:1", &["0.0.0.0:1"], 1, 1), "two listeners are to listen on 0.0"),
            (settings("off", &["0.0.0.0:1", "0.0.0.0:1"], 1, 1), "two listeners"),
            (settings("off", &["0.0.0.0:1"], 2, 1), "names 2 files, and `tls_key` 1 file"),
            (settings("off", &["0.0.0.0:1"], 1, 2), "names 1 file, and `tls_key` 2 files"),
            (
                settings("off", &["0.0.0.0:1,client_certificates=optional"], 1, 1),
                "client_certificates=optional needs `tls_client_ca`",
            ),
        ] {
            let failure = settings.check_listeners().expect_err(words).to_string();
            assert!(failure.contains(words), "{failure}");
        }
        for fine in [
            settings("0.0.0.0:1", &[], 0, 0),
            settings("0.0.0.0:1", &[], 1, 1),
            settings("off", &["0.0.0.0:1"], 1, 1),
            settings("0.0.0.0:0", &["0.0.0.0:0", "0.0.0.0:0,max_fragment_size=512"], 2, 2),
        ] {
            fine.check_listeners().expect("fine");
        }
    }

    #[test]
    fn keys_are_paired_in_order_or_in_the_files_of_certificates() {
        let with = |keys: usize| {
            let mut settings = settings("off", &["0.0.0.0:1"], 2, keys);
            settings.tls_key.iter_mut().for_each(|key| *key = key.with_extension("key"));
            settings.tls_files().expect("pairs").pairs.pop().expect("a second pair")
        };
        let pair = |key: &str| PairFiles { certificate: "1.pem".into(), key: key.into() };
        assert_eq!(with(2), pair("1.key"));
        assert_eq!(with(0), pair("1.pem"));
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let mut settings = settings("0.0.0.0:1", &[], 1, 1);
        settings.tls_client_ca = Some("ca.pem".into());
        let unused = settings.unused();
        assert_eq!(unused.len(), 2, "{unused:?}");
        settings.tls_listen = vec!["0.0.0.0:2,client_certificates=required".parse().expect("it")];
        assert!(settings.unused().is_empty());
        assert!(Settings::default().unused().is_empty());
    }
}
