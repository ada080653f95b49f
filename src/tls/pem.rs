//! Certificates and keys as they lie in PEM files, and what can be wrong with them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::x509::Facts;
use crate::failure::Failure;
use crate::publish::shell_word;

/// Where a certificate and its key lie; perhaps in the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PairFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate with its chain and its key, good to be shown to clients.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) facts: Facts,
    /// The file that it was read from.
    pub(crate) file: PathBuf,
}

impl PairFiles {
    /// Reads both. Fails with the file, what is wrong, and what to do about it.
    pub(crate) fn load(&self, provider: &CryptoProvider) -> Result<Pair, Failure> {
        let chain = certificates(&self.certificate)?;
        let facts = facts(&self.certificate, &chain[0])?;
        if !facts.key.is_usable() {
            let error = format!(
                "the certificate in {} has a key that cannot be used here: {}",
                self.certificate.display(),
                facts.key
            );
            return Err(Failure::failed(error).hint(
                "make one with ECDSA P-256 (best), P-384, Ed25519 or RSA of 2048 to 4096 bits",
            ));
        }
        let certified = self.match_up(chain, key(&self.key)?, provider)?;
        Ok(Pair { certified: Arc::new(certified), facts, file: self.certificate.clone() })
    }

    fn match_up(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, Failure> {
        let certificate = self.certificate.display();
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            Failure::failed(format!("the key in {} cannot be used here", self.key.display())).hint(
                "it must be ECDSA P-256 (best), P-384, Ed25519 or RSA of 2048 to 4096 bits, as \
                 PKCS#8, SEC1 or PKCS#1",
            )
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(Error::InconsistentKeys(_)) => {
                let others = certified.cert.iter().skip(1);
                let key = &certified.key;
                let matches = |other: &CertificateDer<'static>| {
                    CertifiedKey::new(vec![other.clone()], Arc::clone(key)).keys_match().is_ok()
                };
                if others.into_iter().any(matches) {
                    let error =
                        format!("{certificate} does not begin with the server's certificate");
                    return Err(Failure::failed(error).hint(
                        "put the one that the key is for first, those of authorities after it",
                    ));
                }
                let error = format!(
                    "the key in {} does not belong to the first certificate in {certificate}",
                    self.key.display()
                );
                Err(Failure::failed(error).hint(
                    "name keys in the order of their certificates, and look with `otter cert show`",
                ))
            }
            Err(error) => {
                let error = format!("the certificate in {certificate} cannot be used: {error}");
                Err(Failure::failed(error).hint("it must be an X.509 certificate of version 3"))
            }
        }
    }
}

/// Does the key belong to the certificate? None if neither way can be told.
pub(crate) fn belongs(
    key: PrivateKeyDer<'static>,
    certificate: &CertificateDer<'static>,
    provider: &CryptoProvider,
) -> Option<bool> {
    let key = provider.key_provider.load_private_key(key).ok()?;
    match CertifiedKey::new(vec![certificate.clone()], key).keys_match() {
        Ok(()) => Some(true),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Some(false),
        Err(_) => None,
    }
}

/// All certificates in a file: at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| broken(path, &error))?;
    if found.is_empty() {
        let error = format!("there is no certificate in {}", path.display());
        let file = shell_word(path);
        return Err(Failure::failed(error).hint(if text.first() == Some(&DER_SEQUENCE) {
            format!(
                "it seems to be DER: turn it into PEM with `openssl x509 -inform der -in {file}`"
            )
        } else {
            "name a PEM file, with lines that begin with -----BEGIN CERTIFICATE-----".to_owned()
        }));
    }
    Ok(found)
}

/// What the certificate says of itself, which was found in the file `path`.
pub(crate) fn facts(path: &Path, certificate: &CertificateDer<'_>) -> Result<Facts, Failure> {
    Facts::of(certificate).map_err(|error| {
        let error = format!("the certificate in {} cannot be read: {error}", path.display());
        Failure::failed(error).hint("fetch it again from who issued it")
    })
}

/// The first private key in a file.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    let text = read(path)?;
    let file = shell_word(path);
    let is_in = |words: &str| text.windows(words.len()).any(|window| window == words.as_bytes());
    if ENCRYPTED.iter().any(|words| is_in(words)) {
        let error = format!("the key in {} is encrypted", path.display());
        return Err(Failure::failed(error).hint(format!(
            "nobody is there to type its passphrase: decrypt it with `openssl pkey -in {file}`, \
             into a file that only the user of the server may read"
        )));
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            let error = format!("there is no private key in {}", path.display());
            Err(Failure::failed(error).hint(if text.first() == Some(&DER_SEQUENCE) {
                format!("it seems to be DER: turn it into PEM with `openssl pkey -in {file}`")
            } else {
                "name the PEM file of the key with --key (`tls_key`), in the order of the \
                 certificates"
                    .to_owned()
            }))
        }
        Err(error) => Err(broken(path, &error)),
    }
}

/// A regular file that is not too long for what it should be. Never waits, as a pipe would.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: io::Error| {
        let text = format!("cannot read {}: {error}", path.display());
        let kind = error.kind();
        if kind == io::ErrorKind::NotFound {
            Failure::not_found(text).hint("check the path; `otter cert self-signed` makes a pair")
        } else if kind == io::ErrorKind::PermissionDenied {
            Failure::failed(text).hint("let the user that runs the server read it")
        } else {
            Failure::failed(text)
        }
    };
    let kind = fs::metadata(path).map_err(unreadable)?;
    if !kind.is_file() {
        let error = format!("{} is no regular file", path.display());
        return Err(Failure::failed(error).hint("name a PEM file that can be read again"));
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let error = format!("{} is no PEM file: it has more than 1 MiB", path.display());
        return Err(Failure::failed(error));
    }
    Ok(text)
}

fn broken(path: &Path, error: &pem::Error) -> Failure {
    let said = if matches!(error, pem::Error::MissingSectionEnd { .. }) {
        "it ends in the middle".to_owned()
    } else if matches!(error, pem::Error::IllegalSectionStart { .. }) {
        "a line that begins a part is odd".to_owned()
    } else {
        error.to_string()
    };
    Failure::failed(format!("{} is damaged: {said}", path.display()))
        .hint("write it again; perhaps somebody is at it just now")
}

/// How encrypted keys begin: PKCS#8, and what OpenSSL wrote before.
const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
/// Everything that is DER and of interest here begins with it.
const DER_SEQUENCE: u8 = 0x30;
/// More than any chain has.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::made::{Made, convert_key, params};
    use super::super::provider;
    use super::*;

    fn refused(pair: &PairFiles) -> String {
        pair.load(&provider()).expect_err("not good").to_string()
    }

    #[test]
    fn keys_are_read_in_every_form() {
        let made = Made::new();
        let ecdsa = made.ecdsa("ecdsa", &["a.example"]);
        let rsa = made.rsa("rsa", "a.example");
        for (pair, args) in [
            (&ecdsa, &["pkey"][..]),
            (&ecdsa, &["ec"]),
            (&rsa, &["pkey"]),
            (&rsa, &["rsa", "-traditional"]),
        ] {
            let key = made.path("converted.key");
            convert_key(args, &pair.key, &key);
            let pair = PairFiles { key, ..pair.clone() };
            pair.load(&provider()).expect("read");
        }
        let ed25519 = made.openssl("ed25519", &["ed25519"], "a.example");
        let pair = ed25519.load(&provider()).expect("read");
        assert_eq!(pair.facts.key.to_string(), "Ed25519");
        let key = fs::read(&ecdsa.key).expect("a key");
        let both =
            made.write("both.pem", [key, fs::read(&ecdsa.certificate).expect("it")].concat());
        PairFiles { certificate: both.clone(), key: both }.load(&provider()).expect("read");
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said() {
        let made = Made::new();
        let good = made.ecdsa("good", &["a.example"]);
        let text = fs::read_to_string(&good.certificate).expect("it");
        let with = |name: &str, text: &[u8]| PairFiles {
            certificate: made.write(name, text),
            key: good.key.clone(),
        };
        let absent = PairFiles { certificate: made.path("absent.pem"), ..good.clone() };
        let directory = PairFiles { certificate: made.path("."), ..good.clone() };
        for (pair, words) in [
            (&absent, ["absent.pem: No such file", "otter cert self-signed"]),
            (&directory, ["no regular file", "name a PEM file"]),
            (&with("empty.pem", b""), ["no certificate in", "-----BEGIN CERTIFICATE-----"]),
            (&with("der.pem", b"\x30\x82"), ["no certificate in", "openssl x509 -inform der"]),
            (&with("cut.pem", &text.as_bytes()[..200]), ["cut.pem is damaged", "in the middle"]),
            (
                &with("odd.pem", text.replace('M', "!").as_bytes()),
                ["odd.pem is damaged", "write it again"],
            ),
            (
                &with(
                    "text.pem",
                    b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                ),
                ["text.pem cannot be read", "fetch it again"],
            ),
            (&with("long.pem", &vec![b' '; 2 << 20]), ["long.pem", "more than 1 MiB"]),
        ] {
            let said = refused(pair);
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said() {
        let made = Made::new();
        let good = made.ecdsa("good", &["a.example"]);
        let other = made.ecdsa("other", &["a.example"]);
        let rsa = made.rsa("rsa", "a.example");
        let args = ["pkey", "-aes256", "-passout", "pass:secret"];
        convert_key(&args, &good.key, &made.path("pkcs8.key"));
        let args = ["rsa", "-traditional", "-aes256", "-passout", "pass:secret"];
        convert_key(&args, &rsa.key, &made.path("pkcs1.key"));
        let with = |key: PathBuf| PairFiles { key, ..good.clone() };
        for (pair, words) in [
            (with(made.path("absent.key")), ["absent.key: No such file", "check the path"]),
            (with(good.certificate.clone()), ["no private key in", "--key"]),
            (with(made.write("der.key", b"\x30")), ["no private key in", "openssl pkey"]),
            (with(made.path("pkcs8.key")), ["pkcs8.key is encrypted", "openssl pkey -in"]),
            (with(made.path("pkcs1.key")), ["pkcs1.key is encrypted", "openssl pkey -in"]),
            (with(other.key), ["other.key does not belong", "otter cert show"]),
            (with(rsa.key), ["rsa.key does not belong", "order of their certificates"]),
            (
                with(made.write(
                    "odd.key",
                    "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                )),
                ["odd.key cannot be used", "PKCS#8, SEC1 or PKCS#1"],
            ),
        ] {
            let said = refused(&pair);
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }

    #[test]
    fn the_certificate_of_the_key_must_be_the_first() {
        let made = Made::new();
        let (ours, other) = (made.ecdsa("ours", &["a"]), made.ecdsa("other", &["b"]));
        let both = [&other, &ours].map(|pair| fs::read(&pair.certificate).expect("it"));
        let pair = PairFiles { certificate: made.write("chain.pem", both.concat()), ..ours };
        let said = refused(&pair);
        assert!(said.contains("does not begin with the server's certificate"), "{said}");
    }

    #[test]
    fn keys_that_cannot_sign_here_are_named() {
        let made = Made::new();
        for (kind, name) in [
            (&["rsa:1024"][..], "RSA 1024"),
            (&["ed448"], "Ed448"),
            (&["ec", "-pkeyopt", "ec_paramgen_curve:P-521"], "ECDSA P-521"),
            (&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "1.3.132.0.10"),
        ] {
            let said = refused(&made.openssl("it", kind, "a.example"));
            assert!(said.contains(name) && said.contains("ECDSA P-256 (best)"), "{said}");
        }
    }

    #[test]
    fn the_names_of_a_certificate_are_read() {
        let made = Made::new();
        let names = ["B.example", "*.C.example", "192.0.2.1", "2001:db8::1"];
        let pair = made.ecdsa("it", &names).load(&provider()).expect("good");
        assert_eq!(pair.facts.dns_names, ["b.example", "*.c.example"]);
        assert_eq!(pair.facts.other_names, ["192.0.2.1", "2001:db8::1"]);
        let mut params = params(&[]);
        params.distinguished_name.push(rcgen::DnType::CommonName, "only a common name");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let facts = Facts::of(certificate.der()).expect("readable");
        assert_eq!(facts.name(), "only a common name");
    }
}
