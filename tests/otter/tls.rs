//! TLS as clients meet it: `otter serve` with certificates, and curl, OpenSSL, Python and clients
//! of ours that are as small, slow, rude or many as devices are.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use otter_tests::redis::wait_for;

use crate::admin;
use crate::device::{Device, image};
use crate::metrics::scrape;
use crate::program::{Data, Server};

use self::client::{Client, Identity};

mod client;
mod crowd;
mod curl;
mod holders;
mod openssl;
mod python;
mod relay;
mod running;
mod small;
mod strangers;
mod twins;

/// A server with TLS, an owner with a key, and a release for all of its devices.
struct Stage {
    data: Data,
    server: Server,
    owner: String,
    key: String,
    image: Vec<u8>,
}

/// How to start one.
struct Setting<'a> {
    runtime: &'a str,
    /// What follows the address of each place to listen.
    listen: &'a [&'a str],
    more: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
    image_bytes: usize,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self { runtime: "mio", listen: &[""], more: &[], variables: &[], image_bytes: 100_000 }
    }
}

impl Setting<'_> {
    /// Starts a server that shows an ECDSA certificate for [`ECDSA`], which is the default, and an
    /// RSA one for [`RSA`].
    fn start(&self) -> Stage {
        let data = Data::new();
        Identity::new(&[ECDSA, "localhost"]).write(&data.beside(ECDSA), &data.beside(ECDSA_KEY));
        make_rsa(&data.beside(RSA), &data.beside(RSA_KEY));
        let path = |name: &str| data.beside(name).display().to_string();
        let mut args: Vec<String> = ["--runtime", self.runtime].map(str::to_owned).into();
        for options in self.listen {
            args.extend(["--tls-listen".to_owned(), format!("127.0.0.1:0{options}")]);
        }
        for (certificate, key) in [(ECDSA, ECDSA_KEY), (RSA, RSA_KEY)] {
            args.extend(["--cert".to_owned(), path(certificate)]);
            args.extend(["--key".to_owned(), path(key)]);
        }
        let args = args.iter().map(String::as_str).chain(self.more.iter().copied());
        let server = data.serve_with(&args.collect::<Vec<_>>(), self.variables);
        let (owner, key) = admin::owner_with_key(&server.admin);
        let image = image(self.image_bytes, 7);
        publish(&server, &owner, &image);
        Stage { data, server, owner, key, image }
    }
}

impl Stage {
    fn start() -> Self {
        Setting::default().start()
    }

    /// The first place with TLS.
    fn https(&self) -> SocketAddr {
        self.server.https[0]
    }

    fn ecdsa(&self) -> PathBuf {
        self.data.beside(ECDSA)
    }

    /// The `n`th device, which speaks plain HTTP.
    fn device(&self, n: u32) -> Device {
        Device::nth(self.server.http, &self.owner, &self.key, n)
    }

    /// A token of the `n`th device, got without TLS.
    fn token(&self, n: u32) -> String {
        let device = self.device(n);
        device.check_in("1.0.0");
        device.token()
    }

    /// A client that trusts the ECDSA certificate.
    fn client(&self) -> Client {
        Client::trusting(&self.ecdsa())
    }

    /// What a metric says.
    fn metric(&self, name: &str) -> u64 {
        let scraped = scrape(&self.server.admin);
        let value = scraped.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} in {scraped}")).parse().expect("a number")
    }

    /// How many handshakes came out like this.
    fn handshakes(&self, result: &str) -> u64 {
        self.metric(&format!("otter_tls_handshakes_total{{result=\"{result}\"}}"))
    }

    /// Waits until a metric has this value.
    fn until(&self, name: &str, value: u64) {
        wait_for(name, || (self.metric(name) == value).then_some(()));
    }

    /// Ends the server, which must have nothing to complain of, and returns its log.
    fn end(self) -> String {
        let panicked = self.metric("otter_connections_panicked_total");
        let ended = self.server.stop();
        assert!(ended.status.success(), "{}", ended.stderr);
        for level in [" WARN ", " ERROR "] {
            assert!(!ended.stderr.contains(level), "{}", ended.stderr);
        }
        assert_eq!(panicked, 0);
        ended.stderr
    }
}

/// Publishes for all devices of an owner.
fn publish(server: &Server, owner: &str, image: &[u8]) {
    let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
    admin::json(&server.admin, "POST", &target, image);
}

/// An RSA certificate, which ring cannot make.
fn make_rsa(certificate: &Path, key: &Path) {
    let subject = format!("/CN={RSA}");
    let names = format!("subjectAltName=DNS:{RSA}");
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90"])
        .args(["-subj", &subject, "-addext", &names])
        .arg("-out")
        .arg(certificate)
        .arg("-keyout")
        .arg(key)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Writes a file as a careful operator does: it is whole at each moment.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, path).expect("renamed");
}

/// The name in each certificate, and its file.
const ECDSA: &str = "ecdsa.example";
const RSA: &str = "rsa.example";
const ECDSA_KEY: &str = "ecdsa.key";
const RSA_KEY: &str = "rsa.key";
const RUNTIMES: [&str; 2] = ["mio", "tokio"];
