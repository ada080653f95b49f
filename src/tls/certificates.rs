//! The certificates that clients are shown: chosen by name and by what a client can verify,
//! replaced as a whole.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::NamedGroup;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::clients::Authorities;
use super::pem::{Pair, PairFiles};
use super::x509::KeyKind;
use crate::failure::Failure;
use crate::output;

/// The files that are read, again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The first is for clients that name no server, or one that no certificate is for.
    pub(crate) pairs: Vec<PairFiles>,
    /// The authorities that sign certificates of clients.
    pub(crate) client_ca: Option<PathBuf>,
}

/// The set of certificates that is current, and how to get the next one.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Files,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<Set>>,
    /// The files as they were just before they were read last.
    read: Mutex<Vec<Stamp>>,
    reloads_total: AtomicU64,
    reloads_failed_total: AtomicU64,
}

/// Certificates that were good together.
#[derive(Debug)]
pub(crate) struct Set {
    pairs: Vec<Pair>,
    /// Pairs by the names that they are for, in lower case.
    exact: HashMap<String, Vec<usize>>,
    /// Pairs by what follows the `*.` of their names.
    wild: HashMap<String, Vec<usize>>,
    /// The first pair, and those that share a name with it.
    default: Vec<usize>,
    pub(super) authorities: Option<Authorities>,
}

/// Figures of certificates, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsStats {
    pub(crate) certificates: Vec<Expiry>,
    /// Reloads after which the files were in use.
    pub(crate) reloads_total: u64,
    /// Reloads that changed nothing, because something was wrong with a file.
    pub(crate) reloads_failed_total: u64,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// Its first name.
    pub(crate) name: String,
    /// `ecdsa`, `rsa` or `ed25519`.
    pub(crate) key: &'static str,
    /// Unix seconds.
    pub(crate) not_after: u64,
}

impl Certificates {
    /// Reads all files. Fails with the file, what is wrong, and what to do about it.
    pub(crate) fn load(files: Files, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, Failure> {
        let read = files.stamps();
        let set = Set::load(&files, &provider)?;
        Ok(Arc::new(Self {
            files,
            provider,
            current: RwLock::new(Arc::new(set)),
            read: Mutex::new(read),
            reloads_total: AtomicU64::new(0),
            reloads_failed_total: AtomicU64::new(0),
        }))
    }

    /// Reads all files again. If all are good they are used from the next handshake on, otherwise
    /// everything stays as it is. Connections never notice.
    pub(crate) fn reload(&self) -> Result<Arc<Set>, Failure> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        *read = self.files.stamps();
        match Set::load(&self.files, &self.provider) {
            Ok(set) => {
                let set = Arc::new(set);
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::clone(&set);
                self.reloads_total.fetch_add(1, Ordering::Relaxed);
                Ok(set)
            }
            Err(failure) => {
                self.reloads_failed_total.fetch_add(1, Ordering::Relaxed);
                Err(failure)
            }
        }
    }

    /// Are the files others than those that were read last, whether they were good or not?
    pub(crate) fn have_changed(&self) -> bool {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) != self.files.stamps()
    }

    /// What is shown now.
    pub(crate) fn current(&self) -> Arc<Set> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn stats(&self) -> TlsStats {
        let set = self.current();
        let certificates = set.pairs.iter().map(|pair| Expiry {
            name: pair.facts.name().to_owned(),
            key: pair.facts.key.word(),
            not_after: pair.facts.not_after,
        });
        TlsStats {
            certificates: certificates.collect(),
            reloads_total: self.reloads_total.load(Ordering::Relaxed),
            reloads_failed_total: self.reloads_failed_total.load(Ordering::Relaxed),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().choose(&hello)
    }
}

impl Files {
    fn stamps(&self) -> Vec<Stamp> {
        let pairs = self.pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        pairs.chain(&self.client_ca).map(Stamp::of).collect()
    }
}

/// What tells a file from what was at its path before; of a symbolic link, from where it led.
/// None: there is none.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Option<[i64; 7]>);

impl Stamp {
    fn of(path: &PathBuf) -> Self {
        Self(fs::metadata(path).ok().map(|file| {
            let (modified, changed) = ([file.mtime(), file.mtime_nsec()], file.ctime_nsec());
            let [device, inode, length] =
                [file.dev(), file.ino(), file.len()].map(u64::cast_signed);
            // The time of change tells of new permissions, too.
            [device, inode, length, modified[0], modified[1], file.ctime(), changed]
        }))
    }
}

impl Set {
    fn load(files: &Files, provider: &Arc<CryptoProvider>) -> Result<Self, Failure> {
        let pairs: Result<Vec<_>, _> =
            files.pairs.iter().map(|files| files.load(provider)).collect();
        let authorities =
            files.client_ca.as_ref().map(|path| Authorities::load(path, provider)).transpose()?;
        Ok(Self::of(pairs?, authorities))
    }

    fn of(pairs: Vec<Pair>, authorities: Option<Authorities>) -> Self {
        let (mut exact, mut wild) = (HashMap::new(), HashMap::new());
        let mut default = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            for name in &pair.facts.dns_names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut wild, rest),
                    None => (&mut exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_insert_with(Vec::new).push(index);
            }
            let is_first = |name: &str| pairs[0].facts.names().any(|first| first == name);
            if index == 0 || pair.facts.names().any(is_first) {
                default.push(index);
            }
        }
        Self { pairs, exact, wild, default, authorities }
    }

    /// The pair for a client: by the name that it asks for, or the default; of several for the
    /// same name, the cheapest that it can verify.
    fn choose(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(name));
        let candidates = named.unwrap_or(&self.default).iter().map(|&index| &self.pairs[index]);
        // One that it cannot verify is still better than none: the alert then says that the two
        // have nothing in common, which is what is wrong.
        let best = candidates.min_by_key(|pair| cost(pair, hello))?;
        Some(Arc::clone(&best.certified))
    }

    fn named(&self, name: &str) -> Option<&Vec<usize>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        // A `*` stands for one label (RFC 9525, section 6.3).
        let wild = || self.wild.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wild)
    }

    /// What should be said of certificates that end soon, have ended or have not begun.
    pub(crate) fn warnings(&self, now_unix: u64) -> Vec<String> {
        self.pairs.iter().filter_map(|pair| warning(pair, now_unix)).collect()
    }

    /// Names and ends of all certificates, for the log.
    pub(crate) fn summary(&self) -> String {
        let one = |pair: &Pair| {
            let Pair { facts, .. } = pair;
            format!("{} ({}, until {})", facts.name(), facts.key, output::time(facts.not_after))
        };
        self.pairs.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// What a handshake with the pair costs, in classes; the last is for one that cannot succeed.
fn cost(pair: &Pair, hello: &ClientHello<'_>) -> u8 {
    // rustls has left out those that fit none of the client's suites.
    if pair.certified.key.choose_scheme(hello.signature_schemes()).is_none() {
        return u8::MAX;
    }
    // In TLS 1.2 the client's groups are also the curves of certificates that it can read
    // (RFC 8422, section 5.1); in TLS 1.3 they are not, and nearly everybody has both.
    let reads = |curve| hello.named_groups().is_none_or(|groups| groups.contains(&curve));
    match pair.facts.key {
        KeyKind::P256 if reads(NamedGroup::secp256r1) => 0,
        KeyKind::P384 if reads(NamedGroup::secp384r1) => 2,
        KeyKind::Ed25519 => 1,
        KeyKind::Rsa(_) => 3,
        KeyKind::P256 | KeyKind::P384 | KeyKind::Other(_) => 4,
    }
}

fn warning(pair: &Pair, now_unix: u64) -> Option<String> {
    let (facts, file) = (&pair.facts, pair.file.display());
    let name = facts.name();
    if now_unix < facts.not_before {
        let begin = output::time(facts.not_before);
        return Some(format!("the certificate for {name} in {file} is not valid before {begin}"));
    }
    let end = output::time(facts.not_after);
    match facts.not_after.checked_sub(now_unix) {
        None => Some(format!("the certificate for {name} in {file} expired at {end}")),
        Some(left) if left <= WARN_BEFORE_S => {
            let days = left / DAY_S;
            Some(format!("the certificate for {name} in {file} expires in {days} days, at {end}"))
        }
        Some(_) => None,
    }
}

/// Certificates that end within 30 days are warned of.
const WARN_BEFORE_S: u64 = 30 * DAY_S;
const DAY_S: u64 = 86_400;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustls::SignatureScheme::{self, ECDSA_NISTP256_SHA256, RSA_PKCS1_SHA256, RSA_PSS_SHA256};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ServerConfig, SupportedProtocolVersion};

    use super::super::made::{Client, Made, load, resumption};
    use super::super::server_config;
    use super::*;

    fn serving(certificates: &Arc<Certificates>) -> Arc<ServerConfig> {
        let listen = "127.0.0.1:0".parse().expect("a listener");
        server_config(&listen, certificates, &resumption()).expect("a configuration")
    }

    fn shown(client: &Client, config: &Arc<ServerConfig>) -> String {
        let facts = client.shake(config).expect("a handshake").facts();
        format!("{} {}", facts.name(), facts.key)
    }

    #[test]
    fn a_client_gets_the_certificate_for_the_name_it_asks_for() {
        let made = Made::new();
        let certificates = load(vec![
            made.ecdsa("first", &["first.example", "192.0.2.1"]),
            made.ecdsa("wild", &["*.b.example"]),
            made.ecdsa("exact", &["X.b.example", "c.example"]),
        ]);
        let config = serving(&certificates);
        for (asked, name) in [
            (Some("first.example"), "first.example"),
            (Some("c.example"), "x.b.example"),
            (Some("x.b.example"), "x.b.example"),
            (Some("X.B.Example"), "x.b.example"),
            (Some("y.B.example"), "*.b.example"),
            (Some("z.y.b.example"), "first.example"),
            (Some("b.example"), "first.example"),
            (Some("elsewhere.example"), "first.example"),
            (None, "first.example"),
        ] {
            for versions in [&[&TLS12], &[&TLS13]] {
                let client = Client { versions: versions.to_vec(), ..Client::new(asked) };
                let shaken = client.shake(&config).expect("a handshake");
                assert_eq!(shaken.name(), name, "{asked:?}");
            }
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        let made = Made::new();
        let set = load(vec![made.ecdsa("a", &["A.example"]), made.ecdsa("b", &["*.B.example"])]);
        let set = set.current();
        for (name, index) in [("a.Example.", Some(0)), ("x.b.EXAMPLE", Some(1)), ("b.x", None)] {
            assert_eq!(set.named(name), index.map(|index| vec![index]).as_ref(), "{name}");
        }
    }

    fn speaking(
        name: Option<&'static str>,
        version: &'static SupportedProtocolVersion,
        suites: &str,
        schemes: &[SignatureScheme],
    ) -> Client {
        let mut client = Client::new(name);
        client.versions = vec![version];
        client.suites.retain(|suite| format!("{:?}", suite.suite()).contains(suites));
        client.schemes = Some(schemes.to_vec());
        client
    }

    #[test]
    fn of_two_for_one_name_a_client_gets_the_cheaper_that_it_can_verify() {
        let made = Made::new();
        let certificates = load(vec![
            made.rsa("rsa", "a.example"),
            made.ecdsa("p256", &["a.example"]),
            made.ecdsa("other", &["other.example"]),
        ]);
        let config = serving(&certificates);
        let all = [ECDSA_NISTP256_SHA256, RSA_PSS_SHA256, RSA_PKCS1_SHA256];
        let (ecdsa, rsa) = ("a.example ECDSA P-256", "a.example RSA 2048");
        // Without a name it is the same, since that is the first certificate's.
        for name in [Some("a.example"), None] {
            for (version, suites, schemes, expected) in [
                (&TLS12, "", &all[..], ecdsa),
                (&TLS13, "", &all, ecdsa),
                (&TLS12, "ECDHE_RSA", &all, rsa),
                (&TLS12, "ECDHE_ECDSA", &all, ecdsa),
                (&TLS12, "", &all[1..], rsa),
                (&TLS13, "", &all[1..2], rsa),
                (&TLS13, "", &all[..1], ecdsa),
            ] {
                let client = speaking(name, version, suites, schemes);
                assert_eq!(shown(&client, &config), expected, "{name:?} {suites} {schemes:?}");
            }
        }
        let client = speaking(Some("other.example"), &TLS12, "ECDHE_RSA", &all);
        assert!(client.shake(&config).is_err(), "there is no RSA certificate for it");
    }

    #[test]
    fn of_curves_the_cheaper_comes_first() {
        let made = Made::new();
        let pairs = vec![made.ecdsa_p384("p384", &["a"]), made.ecdsa("p256", &["a"])];
        let config = serving(&load(pairs));
        assert_eq!(shown(&Client::new(None), &config), "a ECDSA P-256");
    }

    #[test]
    fn new_certificates_are_used_if_all_are_good() {
        let made = Made::new();
        let pairs = vec![made.ecdsa("a", &["old.example"]), made.ecdsa("b", &["b.example"])];
        let certificates = load(pairs);
        let config = serving(&certificates);
        let name = || Client::new(None).shake(&config).expect("a handshake").name();
        assert!(!certificates.have_changed());

        made.ecdsa("a", &["new.example"]);
        assert!(certificates.have_changed());
        assert_eq!(name(), "old.example", "nobody read them yet");
        certificates.reload().expect("good");
        assert!(!certificates.have_changed());
        assert_eq!(name(), "new.example");

        made.ecdsa("a", &["newer.example"]);
        let key = made.write("b.key", "nothing");
        let failure = certificates.reload().expect_err("a broken one").to_string();
        assert!(failure.contains(&key.display().to_string()), "{failure}");
        assert_eq!(name(), "new.example", "all or none");
        assert!(!certificates.have_changed(), "the same mistake is not told again");
        fs::remove_file(&key).expect("removed");
        assert!(certificates.have_changed());
        made.ecdsa("b", &["b.example"]);
        certificates.reload().expect("good");
        assert_eq!(name(), "newer.example");
        let stats = certificates.stats();
        assert_eq!((stats.reloads_total, stats.reloads_failed_total), (2, 1));
    }

    #[test]
    fn a_symbolic_link_that_leads_elsewhere_is_a_change() {
        // As Kubernetes does: DIR/tls.pem -> ..data/tls.pem, ..data -> the newest directory.
        let made = Made::new();
        for (directory, name) in [("1", "one.example"), ("2", "two.example")] {
            fs::create_dir(made.path(directory)).expect("made");
            made.ecdsa(&format!("{directory}/tls"), &[name]);
        }
        symlink("1", made.path("..data")).expect("linked");
        for name in ["tls.pem", "tls.key"] {
            symlink(format!("..data/{name}"), made.path(name)).expect("linked");
        }
        let pair = PairFiles { certificate: made.path("tls.pem"), key: made.path("tls.key") };
        let certificates = load(vec![pair]);
        assert!(!certificates.have_changed());
        symlink("2", made.path("..data_tmp")).expect("linked");
        fs::rename(made.path("..data_tmp"), made.path("..data")).expect("swapped");
        assert!(certificates.have_changed());
        assert!(certificates.reload().expect("good").summary().starts_with("two.example"));
    }

    #[test]
    fn what_ends_is_warned_of() {
        let made = Made::new();
        let (now, day) = (1_800_000_000, DAY_S);
        let set = load(vec![
            made.valid("good", now - day, now + 31 * day),
            made.valid("soon", now - day, now + 29 * day + 5),
            made.valid("over", now - day, now - 1),
            made.valid("early", now + 1, now + 90 * day),
        ])
        .current();
        let warnings = set.warnings(now);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for (warning, words) in warnings.iter().zip([
            ["soon.pem", "expires in 29 days"],
            ["over.pem", "expired at 2027"],
            ["early.pem", "not valid before 2027"],
        ]) {
            assert!(words.iter().all(|word| warning.contains(word)), "{warning}");
        }
    }
}
