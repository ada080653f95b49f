//! Clients that mean harm: whatever they do, honest devices are answered, and nothing is written
//! for those who have no key.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use otter_tests::Random;

use otter_tests::slow::{Manner, Slow, Way};

use crate::admin;
use crate::device::{Answer, Device, image};
use crate::program::{Data, Server};

struct Town {
    data: Data,
    server: Server,
    owner: String,
    key: String,
}

impl Town {
    fn new(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let data = Data::new();
        let server = data.serve_with(args, variables);
        let (owner, key) = admin::owner_with_key(&server.admin);
        Self { data, server, owner, key }
    }

    /// A server that listens for TLS, too.
    fn with_tls(variables: &[(&str, &str)]) -> Self {
        let data = Data::new();
        data.json(&["cert", "self-signed"]);
        let [cert, key] = ["tls/cert.pem", "tls/key.pem"].map(|file| data.path().join(file));
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        let args = ["--tls-listen", "127.0.0.1:0", "--cert", &cert, "--key", &key];
        let server = data.serve_with(&args, variables);
        let (owner, key) = admin::owner_with_key(&server.admin);
        Self { data, server, owner, key }
    }

    fn device(&self, n: u32) -> Device {
        Device::nth(self.server.http, &self.owner, &self.key, n)
    }

    fn publish(&self, version: &str, bytes: &[u8]) {
        let owner = &self.owner;
        let target = format!("/releases?owner={owner}&all=true&version={version}&platform=arduino");
        admin::json(&self.server.admin, "POST", &target, bytes);
    }

    fn count(&self, metric: &str) -> u64 {
        let (_, text) = admin::raw(&self.server.admin, "GET", "/metrics", b"");
        let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{metric} in {text}"))
    }
}

/// Sends bytes and reads to the end of the connection.
fn exchange(server: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(server).expect("connected");
    // It may have answered and closed before all was sent.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    Answer::parse(bytes)
}

fn random_hex(random: &mut Random) -> String {
    random.bytes::<32>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// While somebody guesses, an honest device checks in; returns the answers that guesses got.
fn guess(
    town: &Town,
    request: impl Fn(&mut Random) -> String + Sync,
) -> BTreeSet<(String, String)> {
    let honest = town.device(1);
    honest.check_in("1.0.0");
    let writes = town.count("otter_store_writes_total");
    let over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let guessers: Vec<_> = (0..3)
            .map(|seed| {
                let (request, server) = (&request, town.server.http);
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    (0..300)
                        .map(|_| exchange(server, request(&mut random).as_bytes()))
                        .map(|answer| answer.expect("an answer"))
                        .map(|answer| (answer.head.clone(), answer.text()))
                        .collect::<BTreeSet<_>>()
                })
            })
            .collect();
        let device = scope.spawn(|| {
            let mut answered = 0;
            while !over.load(Ordering::Acquire) {
                assert_eq!(honest.check_in("1.0.0")["status"], "OK");
                answered += 1;
            }
            answered
        });
        let answers = guessers.into_iter().flat_map(|thread| thread.join().expect("ended"));
        let answers = answers.collect();
        over.store(true, Ordering::Release);
        assert!(device.join().expect("ended") > 0);
        answers
    });
    assert_eq!(town.count("otter_store_writes_total"), writes, "guesses write nothing");
    answers
}

#[test]
fn guessed_tokens_get_one_answer_and_write_nothing() {
    let town = Town::new(&[], &[]);
    town.publish("1.1.0", &image(5000, 1));
    let device = town.device(1);
    device.check_in("1.0.0");
    let token = device.token();
    let answers = guess(&town, |random| {
        // Close guesses, too: all digits of a live token but the last few.
        let guess = random_hex(random);
        let token = if random.chance(50) { guess } else { token[..60].to_owned() + &guess[..4] };
        format!("GET /device/firmware?ott={token} HTTP/1.0\r\n\r\n")
    });
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(_, body)| body == "OTT_UPDATE_NOT_FOUND"), "{answers:?}");
    assert_eq!(device.download(&token, 0).status, 200, "the token is as it was");
}

#[test]
fn guessed_keys_get_one_answer_and_write_nothing() {
    let town = Town::new(&[], &[]);
    let (owner, key) = (town.owner.clone(), town.key.clone());
    let answers = guess(&town, |random| {
        let guess = random_hex(random);
        let key = if random.chance(50) { guess } else { key[..60].to_owned() + &guess[..4] };
        let n = random.below(1000);
        let body = format!(
            "{{\"registration\":{{\"owner\":\"{owner}\",\"mac\":\"5CCF7F{n:06X}\",\
             \"version\":\"9.9.9\",\"udid\":\"5ccf7fee-1337-4000-8000-{n:012x}\"}}}}"
        );
        format!(
            "POST /device/register HTTP/1.1\r\nHost: otter\r\nAuthentication: {key}\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(_, body)| body.contains("owner_found_but_no_key")), "{answers:?}");
    let devices = crate::site::all_devices(&town.server.admin);
    assert_eq!(devices.len(), 1, "{devices:?}");
}

#[test]
fn bombs_are_refused_one_by_one() {
    for runtime in ["mio", "tokio"] {
        let town = Town::new(&["--runtime", runtime], &[]);
        for (name, request, status) in bombs(&town.key) {
            let answer = exchange(town.server.http, request.as_bytes()).expect(name);
            assert_eq!(answer.status, status, "{name}: {}", answer.text());
            assert!(answer.text().starts_with("{\"success\":false"), "{name}: {}", answer.text());
            assert_eq!(town.device(1).check_in("1.0.0")["status"], "OK", "{name}");
        }
        assert_eq!(town.count("otter_connections_panicked_total"), 0);
    }
}

/// What each is called, and the status that it gets.
fn bombs(key: &str) -> Vec<(&'static str, String, u16)> {
    let many = |count: usize, of: &str| of.repeat(count);
    let head = "POST /device/register HTTP/1.1\r\nHost: otter\r\nConnection: close\r\n";
    let post = |body: String| {
        let length = body.len();
        format!("{head}Authentication: {key}\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let chunk = format!("400\r\n{}\r\n", many(1024, " "));
    vec![
        ("one endless line", format!("GET / HTTP/1.1\r\nX: {}", many(9000, "x")), 431),
        ("many lines", format!("GET / HTTP/1.1\r\nHost: o\r\n{}\r\n", many(65, "a:b\r\n")), 431),
        ("a long target", format!("GET /{} HTTP/1.1\r\n\r\n", many(3000, "x")), 414),
        ("a length", format!("{head}Content-Length: 99999999\r\n\r\n"), 413),
        ("chunks", format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", many(20, &chunk)), 413),
        ("brackets", post(many(16_000, "[")), 400),
        ("objects", post(many(2500, "{\"a\":")), 400),
        ("keys", post(format!("{{{}\"a\":1}}", many(3000, "\"b\":1,"))), 413),
        ("escapes", post(format!("{{\"registration\":\"{}\"}}", many(2700, "\\u0000"))), 400),
        ("digits", post(format!("{{\"registration\":{}}}", many(16_000, "9"))), 400),
    ]
}

#[test]
fn a_flood_of_silent_connections_makes_room_for_devices() {
    for runtime in ["mio", "tokio"] {
        let town = Town::new(
            &["--runtime", runtime, "--workers", "1"],
            &[("OTTER_CONNECTIONS_MAX", "50")],
        );
        let device = town.device(1);
        let mut flood = Vec::new();
        for _ in 0..10 {
            flood.extend((0..30).map(|_| TcpStream::connect(town.server.http).expect("queued")));
            assert_eq!(device.check_in("1.0.0")["status"], "OK", "{runtime}");
        }
        assert!(town.count("otter_connections_evicted_total") >= 200);
    }
}

/// In small what `tests/slowloris` does with 15,000.
#[test]
fn slow_clients_of_every_kind_hold_up_nobody() {
    for runtime in ["mio", "tokio"] {
        let town = Town::with_tls(&[("OTTER_RUNTIME", runtime), ("OTTER_HEAD_TIMEOUT_S", "60")]);
        town.publish("1.1.0", &image(400_000, 1));
        let device = town.device(1);
        device.check_in("1.0.0");
        let token = device.token();
        for (way, at) in [(Way::Plain, town.server.http), (Way::Tls, town.server.https[0])] {
            for manner in [Manner::Hello, Manner::Head, Manner::Body, Manner::Read] {
                if (way, manner) == (Way::Plain, Manner::Hello) {
                    continue;
                }
                let mut slow = Slow::new(at, way, manner, &token);
                slow.hold(30).expect("connected");
                for _ in 0..3 {
                    slow.trickle();
                    assert_eq!(device.check_in("1.0.0")["status"], "OK", "{way:?} {manner:?}");
                }
                assert_eq!(slow.held(), 30, "{way:?} {manner:?}: nobody is cut off yet");
                let open = town.count("otter_connections_open");
                assert!(open >= 30, "{way:?} {manner:?}: {open}");
            }
        }
        assert_eq!(town.count("otter_connections_panicked_total"), 0);
    }
}

/// A file that is cut short or taken away under a download ends that download before its tail, and
/// no other; the token is as it was.
#[test]
fn an_image_that_is_damaged_on_the_disk_never_passes_for_whole() {
    let damage: [fn(&std::path::Path); 3] = [
        |path| File::options().write(true).open(path).expect("open").set_len(1000).expect("cut"),
        |path| fs::remove_file(path).expect("removed"),
        |path| {
            let mut file = File::options().write(true).open(path).expect("open");
            file.write_all(&[0xE9, 0xFF]).expect("changed");
        },
    ];
    for damage in damage {
        for way in [Way::Plain, Way::Tls] {
            let town = Town::with_tls(&[]);
            let bytes = image(4 << 20, 1);
            town.publish("1.1.0", &bytes);
            let device = town.device(1);
            device.check_in("1.0.0");
            let token = device.token();
            let at = if way == Way::Plain { town.server.http } else { town.server.https[0] };
            let request = format!("GET /device/firmware?ott={token} HTTP/1.0\r\n\r\n");
            let mut download = way.connect(at).expect("connected");
            download.write_all(request.as_bytes()).expect("sent");
            let mut got = vec![0; 1000];
            download.read_exact(&mut got).expect("the beginning");

            let file = stored(&town.data);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
            damage(&file);
            let mut rest = Vec::new();
            match download.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
                    "{error}"
                ),
            }
            got.extend(rest);
            let answer = Answer::parse(got).expect("a head");
            assert!(answer.body.len() <= bytes.len() - 4096, "{} bytes", answer.body.len());
            assert_eq!(device.check_in("1.0.0")["status"], "OK");
            let again = device.download(&token, 0);
            assert_eq!(again.status, 404, "it is not there");
            assert_eq!(town.count("otter_connections_panicked_total"), 0);
            // Whoever publishes the same again repairs it.
            town.publish("1.1.1", &bytes);
            assert!(device.download(&device.token(), 0).body == bytes);
        }
    }
}

fn stored(data: &Data) -> std::path::PathBuf {
    let entries = fs::read_dir(data.path().join("images")).expect("readable");
    let mut files = entries.map(|entry| entry.expect("ok").path()).filter(|path| path.is_file());
    let file = files.find(|path| fs::metadata(path).expect("there").len() > 1 << 20);
    file.expect("the image")
}
