//! Bodies of fuzz targets for what is private to the program (docs/fuzzing.md). `fuzz/` builds
//! `main.rs` as a library with the feature `fuzzing`; the tests below replay the corpora.

mod admin;
mod deploy;

pub use admin::admin;
pub use deploy::deploy_import;

use std::ffi::OsStr;
use std::path::PathBuf;

use rustls::crypto::ring;
use serde_json::Value;
use tempfile::TempDir;

use crate::config::Settings;
use crate::tls::pem;
use crate::{bundle as bundles, vet};

/// A bundle that passes has a name of its platform for each file, sorted, none twice and none with
/// a slash; one file that is rendered passes. The first line is the platform.
///
/// # Panics
/// If that is not so.
pub fn bundle(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (platform, json) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 1..]);
    let Ok(platform) = vet::platform(&platform) else { return };
    for name in ["config.lua", "x.py", "thinx.json", "x"] {
        if let Ok(made) = bundles::render_one(OsStr::new(name), json.to_vec()) {
            assert_eq!(bundles::check(&made, platform).is_ok(), platform.has(OsStr::new(name)));
        }
    }
    if bundles::check(json, platform).is_err() {
        return;
    }
    let read: Value = serde_json::from_slice(json).expect("what passes is JSON");
    assert_eq!(read["type"], "file");
    let files = read["files"].as_array().expect("what passes has files");
    let names: Vec<_> = files.iter().map(|file| file["name"].as_str().expect("a name")).collect();
    assert!(!names.is_empty() && names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    for name in names {
        assert!(platform.has(OsStr::new(name)) && !name.contains('/'), "{name:?}");
    }
}

/// What a PEM file holds is read or refused with a reason: certificates, a key, whether they
/// belong together, and what each certificate says of itself.
///
/// # Panics
/// If that is not so.
pub fn certificate(bytes: &[u8]) {
    let directory = directory();
    let path = directory.path().join("a.pem");
    std::fs::write(&path, bytes).expect("written");
    let key = pem::key(&path);
    if let Ok(certificates) = pem::certificates(&path) {
        assert!(!certificates.is_empty());
        for certificate in &certificates {
            if let Ok(facts) = pem::facts(&path, certificate) {
                assert!(!facts.name().is_empty());
            }
            if let Ok(key) = &key {
                pem::belongs(key.clone_key(), certificate, &ring::default_provider());
            }
        }
    }
    let pair = pem::PairFiles { certificate: path.clone(), key: path };
    if let Err(failure) = pair.load(&ring::default_provider()) {
        assert!(!failure.error.is_empty());
    }
}

/// What a file of settings says is taken or refused with a reason; what is taken makes settings
/// for the core and the stores.
///
/// # Panics
/// If that is not so.
pub fn config(bytes: &[u8]) {
    let directory = directory();
    std::fs::write(directory.path().join("otter.toml"), bytes).expect("written");
    match Settings::for_command(directory.path()) {
        Ok(settings) => {
            let core = settings.core();
            assert!(core.head_bytes_max > 0 && core.body_bytes_max > 0 && core.headers_max <= 64);
            let _ = (settings.embedded(), settings.memory(), settings.driver(Vec::new()));
            let _ = settings.check_listeners();
        }
        Err(failure) => assert!(!failure.error.is_empty()),
    }
}

/// In memory, if the system has such.
fn directory() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

#[cfg(test)]
mod tests {
    use otter_tests::fuzz::{plant, replay};

    const MUTATIONS: u64 = 1500;

    #[test]
    fn corpora_of_bundles() {
        replay("bundle", super::bundle, 2 * MUTATIONS);
    }

    #[test]
    fn corpora_of_certificates() {
        replay("certificate", super::certificate, MUTATIONS / 5);
    }

    #[test]
    fn corpora_of_settings() {
        replay("config", super::config, MUTATIONS / 5);
    }

    #[test]
    fn corpora_of_deploy_directories() {
        replay("deploy_import", super::deploy_import, MUTATIONS / 3);
    }

    #[test]
    fn corpora_of_admin_requests() {
        replay("admin", super::admin, MUTATIONS / 5);
    }

    /// Not a test: it puts the seeds into the corpora.
    #[test]
    #[ignore = "it writes to fuzz/corpus"]
    fn seed() {
        let texts = |texts: &[&str]| -> Vec<Vec<u8>> {
            texts.iter().map(|text| text.as_bytes().to_vec()).collect()
        };
        plant("bundle", &texts(BUNDLES));
        plant("config", &texts(SETTINGS));
        plant("admin", &texts(super::admin::SEEDS));
        plant("deploy_import", &texts(super::deploy::SEEDS));
        let made = rcgen::generate_simple_self_signed(["otter.example".to_owned()]).expect("made");
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        plant("certificate", &texts(&[&certificate, &key, &format!("{key}{certificate}")]));
    }

    const BUNDLES: &[&str] = &[
        "nodemcu\n{\"type\":\"file\",\"files\":[{\"name\":\"config.lua\",\"data\":\"x=1\"},\
         {\"name\":\"thinx.lua\",\"data\":\"print(\\\"hi\\\")\\n\"}]}",
        "micropython\n{\"type\":\"file\",\"files\":[{\"name\":\"../boot.py\",\"data\":\"\"}]}",
        "python\n{\"type\":\"file\",\"files\":[]}",
        "arduino\n{}",
    ];

    const SETTINGS: &[&str] = &[
        "listen = \"127.0.0.1:7442\"\nworkers = 2\nstore = \"memory\"\nstatus_mode = \"http\"\n",
        "tls_listen = [\"0.0.0.0:7443\", { address = \"[::]:7444\", client_certificates = \
         \"required\" }]\ntls_cert = \"a.pem\"\ntls_key = [\"k.pem\"]\n",
        "store = \"redis://127.0.0.1:6379\"\nimage_origins = [\"https://a/b\", \"s3://c/d\"]\n",
        "token_unused_s = 18446744073709551615\n",
        "public_url = \"http://a:80\"\nhead_bytes_max = 0\n",
        "unknown = 1\n",
    ];
}
