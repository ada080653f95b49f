//! Several servers, of which only one has an image.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use otter_tests::redis::RedisServer;
use serde_json::Value;

use crate::admin;
use crate::device::{Answer, Device, image, sha256};
use crate::program::{Data, Server};

const SECRET: &str = "98765432109876543210987654321098";
const LISTEN: (&str, &str) = ("OTTER_IMAGE_LISTEN", "127.0.0.1:0");

/// A device that may have the image, on a server that was then stopped.
struct Published {
    data: Data,
    device: Device,
    bytes: Vec<u8>,
}

impl Published {
    fn new(variables: &[(&str, &str)], size: usize) -> Self {
        let data = Data::new();
        let server = data.serve_with(&[], variables);
        let (owner, key) = admin::owner_with_key(&server.admin);
        let device = Device::nth(server.http, &owner, &key, 1);
        device.check_in("1.0.0");
        let bytes = image(size, 0);
        let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
        admin::json(&server.admin, "POST", &target, &bytes);
        assert!(server.stop().status.success());
        Self { data, device, bytes }
    }

    fn images(&self) -> PathBuf {
        self.data.path().join("images")
    }

    /// A data directory with the same facts and no image.
    fn heir(&self) -> Data {
        let heir = Data::new();
        std::fs::create_dir(heir.path()).expect("made");
        for file in ["otter.db", "otter.toml"] {
            // There may be no configuration.
            let _ = std::fs::copy(self.data.path().join(file), heir.path().join(file));
        }
        heir
    }

    /// The device, at another server.
    fn at(&self, server: &Server) -> Device {
        Device { server: server.http, ..self.device.clone() }
    }
}

/// Downloads as devices do: again after a 503.
fn download(device: &Device) -> Answer {
    let token = device.token();
    loop {
        let answer = device.download(&token, 0);
        if answer.status != 503 {
            return answer;
        }
    }
}

fn health(server: &Server) -> Value {
    admin::json(&server.admin, "GET", "/health", b"")["image_origins"].clone()
}

/// One request to an image listener.
fn ask(listener: SocketAddr, method: &str, path: &str, secret: Option<&str>) -> (Vec<u8>, Answer) {
    let authorization =
        secret.map(|secret| format!("Authorization: Bearer {secret}\r\n")).unwrap_or_default();
    let mut stream = TcpStream::connect(listener).expect("connected");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: otter\r\n{authorization}\r\n").expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    (bytes.clone(), Answer::parse(bytes).expect("an answer"))
}

fn files_in(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).expect("readable");
    entries.filter(|entry| entry.as_ref().expect("readable").path().is_file()).count()
}

#[test]
fn a_server_fetches_from_the_one_that_published() {
    let secret = ("OTTER_IMAGE_SECRET", SECRET);
    let published = Published::new(&[], 300_000);
    let heir = published.heir();
    let first = published.data.serve_with(&[], &[LISTEN, secret]);
    let origin = format!("http://{}/images", first.images.expect("it listens"));
    let origins = format!("[\"{origin}\"]");
    let second = heir.serve_with(&[], &[("OTTER_IMAGE_ORIGINS", &origins), LISTEN, secret]);
    let answer = download(&published.at(&second));
    assert!(answer.status == 200 && answer.body == published.bytes, "{}", answer.status);
    assert_eq!(files_in(&heir.path().join("images")), 1);
    let states = health(&second);
    assert_eq!(states[0]["origin"], origin);
    assert_eq!((&states[0]["fetched"], &states[0]["failed"]), (&1.into(), &0.into()), "{states}");

    // What it fetched, it gives; and it does not need the first any more.
    first.kill();
    let path = format!("/images/{}", sha256(&published.bytes));
    let (_, answer) = ask(second.images.expect("it listens"), "GET", &path, Some(SECRET));
    assert!(answer.status == 200 && answer.body == published.bytes);
    let answer = download(&published.at(&second));
    assert!(answer.status == 200 && answer.body == published.bytes);
    let log = second.stop().stderr;
    assert!(!log.contains(&SECRET[..16]), "{log}");
}

#[test]
fn servers_on_one_redis_give_what_any_of_them_published() {
    let redis = RedisServer::start();
    let store = ("OTTER_STORE", redis.url());
    let secret = ("OTTER_IMAGE_SECRET", SECRET);
    let data = [Data::new(), Data::new()];
    let first = data[0].serve_with(&[], &[(store.0, &store.1), LISTEN, secret]);
    let origins = format!("[\"http://{}/images\"]", first.images.expect("it listens"));
    let variables = [(store.0, store.1.as_str()), ("OTTER_IMAGE_ORIGINS", &origins), secret];
    let second = data[1].serve_with(&[], &variables);
    let (owner, key) = admin::owner_with_key(&first.admin);
    let devices: Vec<Device> =
        (1..=20).map(|n| Device::nth(second.http, &owner, &key, n)).collect();
    devices.iter().for_each(|device| drop(device.check_in("1.0.0")));
    let bytes = image(500_000, 0);
    let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
    admin::json(&first.admin, "POST", &target, &bytes);
    let downloads: Vec<_> =
        devices.into_iter().map(|device| thread::spawn(move || download(&device))).collect();
    let downloads = downloads.into_iter().map(|download| download.join().expect("a download"));
    assert!(downloads.into_iter().all(|answer| answer.status == 200 && answer.body == bytes));
    assert_eq!(health(&second)[0]["fetched"], 1);
}

#[test]
fn a_wrong_secret_is_refused_and_said() {
    let published = Published::new(&[], 20_000);
    let heir = published.heir();
    let first = published.data.serve_with(&[], &[LISTEN, ("OTTER_IMAGE_SECRET", SECRET)]);
    let origins = format!("[\"http://{}/images\"]", first.images.expect("it listens"));
    let wrong = SECRET.replace('9', "8");
    let second =
        heir.serve_with(&[], &[("OTTER_IMAGE_ORIGINS", &origins), ("OTTER_IMAGE_SECRET", &wrong)]);
    let device = published.at(&second);
    let token = device.token();
    assert_eq!(device.download(&token, 0).status, 503);
    let states = health(&second);
    assert_eq!(states[0]["failed"], 1, "{states}");
    assert!(states[0]["failure"].as_str().is_some_and(|text| text.contains("401")), "{states}");
    assert_eq!(files_in(&heir.path().join("images")), 0);
    let log = second.stop().stderr;
    assert!(log.contains("could not be fetched") && !log.contains(&wrong[..16]), "{log}");
}

#[test]
fn the_listener_gives_images_and_nothing_else() {
    let published = Published::new(&[], 300_000);
    let secret = ("OTTER_IMAGE_SECRET", SECRET);
    let server = published.data.serve_with(&[], &[LISTEN, secret]);
    let listener = server.images.expect("it listens");
    let digits = sha256(&published.bytes);
    let path = format!("/images/{digits}");
    let (bytes, answer) = ask(listener, "GET", &path, Some(SECRET));
    assert!(answer.status == 200 && answer.body == published.bytes);
    let head = String::from_utf8_lossy(&bytes[..bytes.len() - answer.body.len()]).to_lowercase();
    for line in ["content-length: 300000\r\n".to_owned(), format!("etag: \"{digits}\"\r\n")] {
        assert!(head.contains(&line), "{head}");
    }
    let (bytes, answer) = ask(listener, "HEAD", &path, Some(SECRET));
    assert!(answer.status == 200 && answer.body.is_empty());
    assert!(String::from_utf8_lossy(&bytes).to_lowercase().contains("content-length: 300000\r\n"));

    let other = format!("/images/{}", sha256(b"not published"));
    for (method, path, secret, status) in [
        ("GET", path.as_str(), None, 401),
        ("GET", "/", None, 401),
        ("GET", &path, Some("short"), 401),
        ("GET", &other, Some(SECRET), 404),
        ("GET", "/images/", Some(SECRET), 404),
        ("GET", "/images/../otter.db", Some(SECRET), 404),
        ("GET", "/images/.incoming", Some(SECRET), 404),
        ("PUT", &path, Some(SECRET), 405),
        ("DELETE", &path, Some(SECRET), 405),
    ] {
        let (_, answer) = ask(listener, method, path, secret);
        assert_eq!((answer.status, answer.text()), (status, String::new()), "{method} {path}");
    }

    // A file that was changed by hand is not given.
    let file = published.images().join(&digits);
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, image(300_000, 1)).expect("damaged");
    assert_eq!(ask(listener, "GET", &path, Some(SECRET)).1.status, 404);
    assert!(server.stop().status.success());
}

#[test]
fn without_a_secret_only_loopback_may_listen() {
    let data = Data::new();
    let file = data.beside("o.toml");
    std::fs::write(&file, "image_listen = \"0.0.0.0:0\"\n").expect("written");
    let ran =
        data.run(&["serve", "--listen", "127.0.0.1:0", "--config", &file.display().to_string()]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("image_listen") && ran.stderr.contains("image_secret"));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    std::fs::write(&file, format!("image_listen = \"{address}\"\n")).expect("written");
    let ran =
        data.run(&["serve", "--listen", "127.0.0.1:0", "--config", &file.display().to_string()]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains(&address) && ran.stderr.contains("image_listen"), "{}", ran.stderr);
}

#[test]
fn servers_that_name_each_other_and_themselves_ask_once() {
    let published = Published::new(&[], 20_000);
    let address = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let addresses = [address(), address()].map(|address| address.to_string());
    let origins =
        format!("[\"http://{}/images\", \"http://{}/images\"]", addresses[0], addresses[1]);
    let heirs = [published.heir(), published.heir()];
    let servers: Vec<Server> = heirs
        .iter()
        .zip(&addresses)
        .map(|(heir, address)| {
            let listen = ("OTTER_IMAGE_LISTEN", address.as_str());
            heir.serve_with(&[], &[listen, ("OTTER_IMAGE_ORIGINS", &origins)])
        })
        .collect();
    for server in &servers {
        let device = published.at(server);
        let answer = device.download(&device.token(), 0);
        assert_eq!(answer.status, 404, "nobody has it");
        assert_eq!(health(server)[0]["failed"], 0);
    }
}

#[test]
fn an_origin_that_hangs_costs_its_own_devices_a_503_and_others_nothing() {
    let published = Published::new(&[], 20_000);
    let heir = published.heir();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let origins = format!("[\"http://{}/images\"]", silent.local_addr().expect("an address"));
    let variables = [("OTTER_IMAGE_ORIGINS", origins.as_str()), ("OTTER_ANSWER_TIMEOUT_MS", "200")];
    let server = heir.serve_with(&["--workers", "1"], &variables);
    let waiting = published.at(&server);
    let hanging = waiting.request_download(&waiting.token(), 0).expect("connected");
    let (asked, _) = silent.accept().expect("the origin is asked");

    let (owner, key) = admin::owner_with_key(&server.admin);
    let other = Device::nth(server.http, &owner, &key, 2);
    other.check_in("1.0.0");
    let bytes = image(2 << 20, 1);
    let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
    admin::json(&server.admin, "POST", &target, &bytes);
    let answer = other.download(&other.token(), 0);
    assert!(answer.status == 200 && answer.body == bytes);

    let mut hanging = hanging;
    let mut head = Vec::new();
    hanging.read_to_end(&mut head).expect("an answer");
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: 10\r\n"), "{head}");
    drop(asked);
    assert!(server.stop().status.success());
}

#[test]
fn kill_in_the_middle_of_a_fetch_leaves_nothing_half() {
    let published = Published::new(&[], 300_000);
    let heir = published.heir();
    let half = published.bytes[..150_000].to_vec();
    let length = published.bytes.len();
    let stuck = TcpListener::bind("127.0.0.1:0").expect("a port");
    let origins = format!("[\"http://{}/images\"]", stuck.local_addr().expect("an address"));
    let (tell, sent) = mpsc::channel();
    thread::spawn(move || {
        let (stream, _) = stuck.accept().expect("connected");
        let mut stream = BufReader::new(stream);
        request(&mut stream).expect("a request");
        let stream = stream.get_mut();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").expect("sent");
        stream.write_all(&half).expect("sent");
        tell.send(()).expect("heard");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let server = heir.serve_with(&[], &[("OTTER_IMAGE_ORIGINS", &origins)]);
    let device = published.at(&server);
    let waiting = device.request_download(&device.token(), 0).expect("connected");
    sent.recv().expect("half of it is there");
    let incoming = heir.path().join("images/.incoming");
    let patience = Instant::now() + Duration::from_secs(60);
    while files_in(&incoming) == 0 {
        assert!(Instant::now() < patience, "half of it is written aside");
        thread::yield_now();
    }
    server.kill();
    drop(waiting);
    assert_eq!(files_in(&heir.path().join("images")), 0);

    let first = published.data.serve_with(&[], &[LISTEN]);
    let origins = format!("[\"http://{}/images\"]", first.images.expect("it listens"));
    let server = heir.serve_with(&[], &[("OTTER_IMAGE_ORIGINS", &origins)]);
    assert_eq!(files_in(&incoming), 0, "swept at the start");
    let answer = download(&published.at(&server));
    assert!(answer.status == 200 && answer.body == published.bytes, "{}", answer.status);
}

#[test]
fn object_storage_has_what_any_server_published() {
    let bucket = Bucket::start();
    let variables = bucket.variables();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // The second is put there in parts.
    for size in [300_000, 9 << 20] {
        let published = Published::new(&variables, size);
        let key = format!("/bucket/some/prefix/{}", sha256(&published.bytes));
        assert!(
            bucket
                .objects
                .lock()
                .expect("kept")
                .iter()
                .any(|(name, bytes)| { *name == key && *bytes == published.bytes })
        );
        let heir = published.heir();
        let server = heir.serve_with(&[], &variables);
        let answer = download(&published.at(&server));
        assert!(answer.status == 200 && answer.body == published.bytes, "{}", answer.status);
    }
    let requests: Vec<String> = bucket.requests.try_iter().collect();
    let signed = "AWS4-HMAC-SHA256 Credential=AKIAOTTER/";
    assert!(requests.iter().all(|head| head.contains(signed)), "{requests:?}");

    // A publication that cannot be put there is none; the command line puts there, too.
    bucket.refuse();
    let data = Data::new();
    data.json(&["owner", "create"]);
    let owner = crate::program::text(&data.json(&["owner", "list"])[0], "owner");
    let file = data.beside("app.bin");
    std::fs::write(&file, image(20_000, 2)).expect("written");
    let file = file.display().to_string();
    let publish = |owner: &str| {
        crate::program::command(&data.path())
            .args(["publish", &file, "--owner", owner, "--all", "--version", "1.0.0"])
            .args(["--platform", "arduino"])
            .envs(variables.iter().copied())
            .output()
            .expect("the program runs")
    };
    let refused = publish(&owner);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("s3://bucket/some/prefix") && said.contains("403"), "{said}");
    assert_eq!(data.json(&["release", "list"]).as_array().map(Vec::len), Some(0));
}

/// As much of S3 as is asked of it: PUT, multipart uploads and GET, over HTTP/1.1.
struct Bucket {
    address: SocketAddr,
    objects: Objects,
    requests: Receiver<String>,
    refuses: Arc<Mutex<bool>>,
}

type Objects = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

impl Bucket {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let objects = Objects::default();
        let refuses = Arc::new(Mutex::new(false));
        let (tell, requests) = mpsc::channel();
        let (kept, refusing) = (Arc::clone(&objects), Arc::clone(&refuses));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, refusing) = (Arc::clone(&kept), Arc::clone(&refusing));
                let tell = tell.clone();
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream.expect("a connection"));
                    while let Some((head, body)) = request(&mut stream) {
                        let refuses = *refusing.lock().expect("set");
                        let answer = if refuses { status(403) } else { store(&kept, &head, body) };
                        // The test may have ended.
                        let _ = tell.send(head);
                        if stream.get_mut().write_all(&answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, objects, requests, refuses }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OTTER_IMAGE_ORIGINS", "[\"s3://bucket/some/prefix\"]".to_owned()),
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIAOTTER".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
    }

    fn refuse(&self) {
        *self.refuses.lock().expect("set") = true;
    }
}

fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn store(objects: &Objects, head: &str, body: Vec<u8>) -> Vec<u8> {
    let mut words = head.split(' ');
    let (method, target) = (words.next().expect("a method"), words.next().expect("a target"));
    let (key, query) = target.split_once('?').unwrap_or((target, ""));
    let mut objects = objects.lock().expect("kept");
    let part = |key: &str| format!("{key}?part");
    match (method, query) {
        ("PUT", "") => {
            objects.push((key.to_owned(), body));
            status(200)
        }
        ("GET", "") => match objects.iter().find(|(name, _)| name == key) {
            Some((_, bytes)) => with_body(bytes),
            None => status(404),
        },
        ("POST", "uploads" | "uploads=") => with_body(
            b"<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key>\
              <UploadId>u</UploadId></InitiateMultipartUploadResult>",
        ),
        ("PUT", _) => {
            objects.push((part(key), body));
            status(200)
        }
        ("POST", _) => {
            let is_part = |(name, _): &&(String, Vec<u8>)| *name == part(key);
            let parts = objects.iter().filter(is_part).flat_map(|(_, bytes)| bytes.clone());
            let whole = (key.to_owned(), parts.collect());
            objects.push(whole);
            with_body(
                b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>",
            )
        }
        (_, _) => status(405),
    }
}

fn status(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} S3\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn with_body(body: &[u8]) -> Vec<u8> {
    let date = "Last-Modified: Tue, 24 Nov 2026 08:00:00 GMT";
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\n{date}\r\nETag: \"e\"\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}
