//! `otter cert`: a certificate to try TLS with, and what is in one.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::pki_types::DnsName;

use crate::cli::{Cert, SelfSigned};
use crate::failure::{Context, Failure};
use crate::output::{self, Output};
use crate::publish::shell_word;
use crate::shapes::{CertEntry, CertMade};
use crate::tls::x509::{Facts, sha1_fingerprint, sha256_fingerprint};
use crate::tls::{self, pem};

pub(crate) fn run(data: &Path, command: &Cert, output: Output) -> Result<ExitCode, Failure> {
    match command {
        Cert::SelfSigned(args) => {
            let made = make(data, args)?;
            output.show(&made, explained)?;
            Ok(ExitCode::SUCCESS)
        }
        Cert::Show { file, key } => {
            let entry = look(file, key.as_deref())?;
            output.show(&entry, shown)?;
            Ok(ExitCode::from(u8::from(entry.key_matches == Some(false))))
        }
    }
}

/// A name that a certificate can be for: of DNS, perhaps with `*.` before it, or an address.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let dns = text.strip_prefix("*.").unwrap_or(text);
    if text.parse::<IpAddr>().is_ok() || DnsName::try_from(dns).is_ok() {
        return Ok(text.to_owned());
    }
    Err("a name is one of DNS, such as ota.example.com or *.example.com, or an address, without a \
         port"
        .to_owned())
}

fn make(data: &Path, args: &SelfSigned) -> Result<CertMade, Failure> {
    let names = if args.name.is_empty() { names_of_this_host() } else { args.name.clone() };
    let making = || "cannot make a certificate".to_owned();
    let mut params = CertificateParams::new(names.clone()).context(making)?;
    let now = now_unix();
    let at = |unix: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(unix);
    // Clocks of those who check differ a little.
    params.not_before = at(now - CLOCKS_DIFFER_S);
    params.not_after = at(now + u64::from(args.days) * DAY_S);
    // Each extension is read by devices that count their bytes, so there is none without a need.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    let key = KeyPair::generate().context(making)?;
    let certificate = params.self_signed(&key).context(making)?;
    let facts = Facts::of(certificate.der()).context(making)?;

    let directory = args.out.clone().unwrap_or_else(|| data.join(DIRECTORY));
    let place = |name: &str| directory.join(name);
    let (certificate_file, key_file) = (place(CERTIFICATE_FILE), place(KEY_FILE));
    if let Some(there) = [&certificate_file, &key_file].into_iter().find(|file| file.exists())
        && !args.force
    {
        let error = format!("{} is there already", there.display());
        return Err(
            Failure::conflict(error).hint("choose another --out, or replace it with --force")
        );
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .context(|| format!("cannot make the directory {}", directory.display()))?;
    // The key first: a certificate without its key helps nobody.
    write(&directory, KEY_FILE, &key.serialize_pem(), 0o600, args.force)?;
    write(&directory, CERTIFICATE_FILE, &certificate.pem(), 0o644, args.force)?;
    Ok(CertMade {
        certificate: certificate_file.display().to_string(),
        key: key_file.display().to_string(),
        names,
        not_after: facts.not_after,
        sha1: sha1_fingerprint(certificate.der()),
        sha256: sha256_fingerprint(certificate.der()),
    })
}

/// Writes a file as a whole: whoever reads it sees all of it.
fn write(
    directory: &Path,
    name: &str,
    text: &str,
    mode: u32,
    replace: bool,
) -> Result<(), Failure> {
    let path = directory.join(name);
    let failed = |error: io::Error| {
        let text = format!("cannot write {}: {error}", path.display());
        if error.kind() == io::ErrorKind::AlreadyExists {
            Failure::conflict(text).hint("choose another --out, or replace it with --force")
        } else {
            Failure::failed(text)
        }
    };
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let kept = if replace { file.persist(&path) } else { file.persist_noclobber(&path) };
    kept.map(drop).map_err(|error| failed(error.error))
}

fn names_of_this_host() -> Vec<String> {
    let mut names: Vec<_> = DEFAULT_NAMES.map(str::to_owned).into();
    let system = rustix::system::uname();
    let host = system.nodename().to_str().ok().and_then(|host| name(host).ok());
    names.extend(host.filter(|host| !DEFAULT_NAMES.contains(&host.as_str())));
    names
}

fn explained(made: &CertMade) -> String {
    let CertMade { certificate, key, names, not_after, sha1, sha256 } = made;
    let pairs = output::pairs(&[
        ("certificate", certificate.clone()),
        ("key", key.clone()),
        ("names", names.join(", ")),
        ("valid until", output::time(*not_after)),
        ("SHA-1", sha1.clone()),
        ("SHA-256", sha256.clone()),
    ]);
    let [certificate, key] = [certificate, key].map(|path| shell_word(Path::new(path)));
    format!(
        "{pairs}\n\nRun the server with it:\n\n  otter serve --tls-listen 0.0.0.0:7443 --cert \
         {certificate} --key {key}\n\nSketches that pin a certificate take the SHA-1: \
         setFingerprint(\"{sha1}\")."
    )
}

fn look(file: &Path, key: Option<&Path>) -> Result<CertEntry, Failure> {
    let chain = pem::certificates(file)?;
    let certificate = &chain[0];
    let facts = pem::facts(file, certificate)?;
    let key = match key {
        Some(key) => Some(pem::key(key)?),
        None => pem::key(file).ok(),
    };
    let matches = key.and_then(|key| pem::belongs(key, certificate, &tls::provider()));
    let left = facts.not_after.cast_signed() - now_unix().cast_signed();
    Ok(CertEntry {
        names: facts.names().map(str::to_owned).collect(),
        key: facts.key.to_string(),
        key_matches: matches,
        not_before: facts.not_before,
        not_after: facts.not_after,
        days_left: left.div_euclid(DAY_S.cast_signed()),
        certificates: chain.len(),
        sha1: sha1_fingerprint(certificate),
        sha256: sha256_fingerprint(certificate),
    })
}

fn shown(entry: &CertEntry) -> String {
    let left = match entry.days_left {
        days @ 0.. => format!("{days} days left"),
        _ => "expired".to_owned(),
    };
    let matches = match entry.key_matches {
        Some(true) => "yes",
        Some(false) => "NO: the key belongs to another certificate",
        None => "-",
    };
    output::pairs(&[
        ("names", output::or_dash(Some(&entry.names.join(", ")))),
        ("key", entry.key.clone()),
        ("key matches", matches.to_owned()),
        ("valid from", output::time(entry.not_before)),
        ("valid until", format!("{} ({left})", output::time(entry.not_after))),
        ("certificates", entry.certificates.to_string()),
        ("SHA-1", entry.sha1.clone()),
        ("SHA-256", entry.sha256.clone()),
    ])
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// In the data directory.
const DIRECTORY: &str = "tls";
const CERTIFICATE_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";
const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Nobody looks at it: names are in the subjectAltName.
const COMMON_NAME: &str = "otter";
const CLOCKS_DIFFER_S: u64 = 3600;
const DAY_S: u64 = 86_400;
