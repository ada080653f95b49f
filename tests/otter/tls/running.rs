//! What happens to connections that are under way: certificates are replaced, images are cut short,
//! the server is full, or it ends.

use std::fs::{self, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use otter_tests::redis::wait_for;
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};

use super::client::{Client, Identity, Line};
use super::{ECDSA, ECDSA_KEY, RUNTIMES, Setting, Stage, publish, replace};
use crate::admin;
use crate::device::{Answer, Device, image};

/// More than all buffers on the way hold.
const IMAGE_BYTES: usize = 400_000;
/// What a slow reader takes before it waits.
const BEGUN_BYTES: usize = 1000;

/// A download that has begun, in either version of TLS, by a slow reader.
struct Download {
    line: Line,
    begun: Vec<u8>,
}

impl Download {
    fn begin(stage: &Stage, n: usize, token: &str) -> Self {
        let version = [&TLS12, &TLS13][n % 2];
        let mut line = stage.client().of(version).narrow().connect(stage.https());
        line.send(&Device::download_request(token, 0));
        let begun = line.read(BEGUN_BYTES);
        Self { line, begun }
    }

    fn finish(mut self) -> Answer {
        let rest = self.line.rest().expect("the rest and its end");
        Answer::parse([self.begun, rest].concat()).expect("an answer")
    }
}

/// Puts another certificate in the place of the first, and returns who trusts it.
fn renew(stage: &Stage) -> Client {
    let identity = Identity::new(&[ECDSA]);
    replace(&stage.ecdsa(), &identity.certificate);
    replace(&stage.data.beside(ECDSA_KEY), &identity.key);
    stage.client()
}

/// The ends of images leave once their tokens are used up, so none has left.
fn assert_under_way(stage: &Stage) {
    assert_eq!(stage.metric("otter_tokens_claimed_total"), 0);
}

/// Begins so many. Whoever fetched their tokens is gone before.
fn downloads(stage: &Stage, count: u32) -> Vec<Download> {
    let open = stage.metric("otter_connections_open");
    let token = |n| {
        let device = stage.device(n);
        device.check_in("1.0.0");
        stage.until("otter_connections_open", open);
        let token = device.token();
        stage.until("otter_connections_open", open);
        token
    };
    let tokens: Vec<_> = (0..count).map(token).collect();
    let tokens = tokens.iter().enumerate();
    tokens.map(|(n, token)| Download::begin(stage, n, token)).collect()
}

#[test]
fn certificates_are_replaced_under_a_hundred_downloads() {
    for runtime in RUNTIMES {
        let image_bytes = IMAGE_BYTES;
        let stage = Setting { runtime, image_bytes, ..Setting::default() }.start();
        let running = downloads(&stage, 100);
        let old = stage.client();
        // Noticed by itself.
        let second = renew(&stage);
        wait_for("the second one", || second.try_connect(stage.https()).ok());
        assert!(old.try_connect(stage.https()).is_err(), "the first one is gone");
        // On a signal.
        let third = renew(&stage);
        stage.server.signal(Signal::HUP);
        wait_for("the third one", || third.try_connect(stage.https()).ok());
        assert!(second.try_connect(stage.https()).is_err(), "the second one is gone");
        // A broken one is not shown, and that is said.
        let failed = "otter_tls_reloads_total{result=\"failed\"}";
        let before = stage.metric(failed);
        replace(&stage.data.beside(ECDSA_KEY), "no key");
        stage.server.signal(Signal::HUP);
        wait_for("a complaint", || (stage.metric(failed) > before).then_some(()));
        third.connect(stage.https());

        assert_under_way(&stage);
        for (n, download) in running.into_iter().enumerate() {
            let answer = download.finish();
            assert!(answer.status == 200 && answer.body == stage.image, "{runtime} {n}");
        }
        let ended = stage.server.stop();
        assert!(ended.status.success(), "{}", ended.stderr);
        for words in ["certificates were read again", "the old ones stay in use"] {
            assert!(ended.stderr.contains(words), "{words} in {}", ended.stderr);
        }
    }
}

#[test]
fn an_image_that_is_cut_short_ends_its_downloads_and_no_others() {
    for runtime in RUNTIMES {
        let image_bytes = IMAGE_BYTES;
        let stage = Setting { runtime, image_bytes, ..Setting::default() }.start();
        let (owner, key) = admin::owner_with_key(&stage.server.admin);
        let other_image = image(IMAGE_BYTES + 1, 1);
        publish(&stage.server, &owner, &other_image);
        let other = Device::nth(stage.server.http, &owner, &key, 77);
        other.check_in("1.0.0");
        let mut good = stage.client().narrow().connect(stage.https());
        good.send(&Device::download_request(&other.token(), 0));
        let begun = good.read(BEGUN_BYTES);

        let torn = downloads(&stage, 4);
        let path = file_of_size(&stage.data.path(), IMAGE_BYTES as u64).expect("the image");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
        let file = OpenOptions::new().write(true).open(path).expect("it may be written");
        // In the middle of a page: what a mapping shows from there on is zeros, then nothing.
        file.set_len(10_001).expect("a shorter file");
        assert_under_way(&stage);
        for mut download in torn {
            let error = download.line.rest().expect_err("no end is said").kind();
            let is_cut = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error);
            assert!(is_cut, "{runtime}: {error:?}");
        }
        let rest = good.rest().expect("the other image is whole");
        let answer = Answer::parse([begun, rest].concat()).expect("an answer");
        assert!(answer.status == 200 && answer.body == other_image, "{runtime}");
        stage.until("otter_connections_closed_total{reason=\"torn\"}", 4);
        let health = stage.client().ask(stage.https(), HEALTH);
        assert_eq!(health.text(), "{\"healthcheck\":true}");
        let ended = stage.server.stop();
        assert!(ended.status.success(), "{}", ended.stderr);
        let told = ended.stderr.matches("a file was cut short while its image was sent").count();
        assert_eq!(told, 4, "{}", ended.stderr);
    }
}

#[test]
fn a_drain_lets_downloads_finish() {
    for runtime in RUNTIMES {
        let image_bytes = IMAGE_BYTES;
        let stage = Setting { runtime, image_bytes, ..Setting::default() }.start();
        let mut idle = [&TLS12, &TLS13].map(|version| {
            let mut line = stage.client().of(version).connect(stage.https());
            line.send("GET / HTTP/1.1\r\nHost: otter\r\n\r\n");
            assert!(line.read(15).starts_with(b"HTTP/1.1 200 OK"));
            line
        });
        let running = downloads(&stage, 6);
        assert_under_way(&stage);
        stage.server.signal(Signal::TERM);
        for line in &mut idle {
            line.rest().expect("the end is said");
        }
        wait_for("closed doors", || TcpStream::connect(stage.https()).is_err().then_some(()));
        for download in running {
            let answer = download.finish();
            assert!(answer.status == 200 && answer.body == stage.image, "{runtime}");
        }
        let ended = stage.server.ended();
        assert!(ended.status.success(), "{}", ended.stderr);
    }
}

#[test]
fn beyond_the_limit_of_connections_nobody_shakes_hands() {
    for runtime in RUNTIMES {
        let (image_bytes, more) = (IMAGE_BYTES, &["--workers", "1"]);
        let variables = &[("OTTER_CONNECTIONS_MAX", "2")];
        let stage = Setting { runtime, image_bytes, more, variables, ..Setting::default() };
        let stage = stage.start();
        let running = downloads(&stage, 2);
        for _ in 0..3 {
            assert!(stage.client().try_connect(stage.https()).is_err(), "{runtime}: no room");
        }
        assert_eq!(stage.metric("otter_connections_refused_total"), 3);
        assert_eq!((stage.handshakes("full"), stage.handshakes("abandoned")), (2, 0));
        for download in running {
            let answer = download.finish();
            assert!(answer.status == 200 && answer.body == stage.image, "{runtime}");
        }
        stage.until("otter_connections_open", 0);
        stage.client().ask(stage.https(), HEALTH);
        stage.end();
    }
}

#[test]
fn listeners_differ_in_what_they_ask_and_http_may_be_off() {
    for runtime in RUNTIMES {
        let listen = &["", ",max_fragment_size=512", ",max_fragment_size=1024"];
        let more = &["--listen", "off"];
        let stage = Setting { runtime, listen, more, ..Setting::default() }.start();
        assert_eq!((stage.server.http.port(), stage.server.https.len()), (0, 3));
        let device = stage.device(1);
        for (https, most) in stage.server.https.iter().zip([16_384, 512, 1024]) {
            let client = stage.client();
            let mut line = client.connect(*https);
            line.send(&device.check_in_request("1.0.0"));
            assert_eq!(line.answer().expect("an answer").status, 200);
            let answer = client.ask(*https, &device.token_request());
            let mut line = client.connect(*https);
            line.send(&Device::download_request(&Device::token_in(&answer), 0));
            let answer = line.answer().expect("the image and its end");
            assert!(answer.status == 200 && answer.body == stage.image, "{runtime} {most}");
            assert!((most + 1..=most + 29).contains(&line.longest()), "{}", line.longest());
        }
        stage.end();
    }
}

fn file_of_size(directory: &Path, size: u64) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return file_of_size(&path, size);
        }
        (entry.metadata().ok()?.len() == size).then_some(path)
    })
}

const HEALTH: &str = "GET / HTTP/1.1\r\nHost: otter\r\nConnection: close\r\n\r\n";
