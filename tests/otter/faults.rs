//! Disks and systems that fail, one fault at a time: a clear error, nothing that was acknowledged
//! lost, everybody else served meanwhile, and all well again when the fault is over.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use otter_tests::redis::wait_for;

use crate::admin;
use crate::device::{Answer, Device, image};
use crate::program::{Data, Ran, Server, command};
use crate::site::{all_devices, allow_updates};
use crate::strace::Failing;

/// A server, an owner, and what it is asked for.
struct Town {
    data: Data,
    server: Server,
    owner: String,
    key: String,
}

impl Town {
    fn new() -> Self {
        Self::on(Data::new(), &[])
    }

    fn on(data: Data, args: &[&str]) -> Self {
        let server = data.serve_with(args, &[]);
        let (owner, key) = admin::owner_with_key(&server.admin);
        Self { data, server, owner, key }
    }

    fn device(&self, n: u32) -> Device {
        Device::nth(self.server.http, &self.owner, &self.key, n)
    }

    fn publish(&self, version: &str, bytes: &[u8]) -> (u16, String) {
        let owner = &self.owner;
        let target = format!("/releases?owner={owner}&all=true&version={version}&platform=arduino");
        admin::raw(&self.server.admin, "POST", &target, bytes)
    }

    /// `kill -9`, and a start.
    fn restarted(self) -> Self {
        self.server.kill();
        Self { server: self.data.serve(), ..self }
    }

    fn count(&self, metric: &str) -> u64 {
        count(&self.server, metric)
    }
}

fn count(server: &Server, metric: &str) -> u64 {
    let (_, text) = admin::raw(&server.admin, "GET", "/metrics", b"");
    let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{metric} in {text}"))
}

fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.text(), "{\"success\":false,\"response\":\"unavailable\"}");
    assert!(answer.header("Retry-After").is_some(), "{}", answer.head);
}

/// What a disk that fails does to a server that runs, and that it is over afterwards.
fn a_disk_fails(calls: &str, error: &str) {
    let town = Town::new();
    let bytes = image(100_000, 1);
    let (status, text) = town.publish("1.1.0", &bytes);
    assert_eq!(status, 200, "{text}");
    let known = town.device(1);
    known.check_in("1.0.0");
    known.check_in("1.0.0");
    allow_updates(&town.server.admin, &known.udid);
    let token = known.token();
    let current = town.device(2);
    assert_eq!(current.check_in("1.1.0")["status"], "OK");

    let Some(failing) = Failing::of(town.server.pid(), calls, error) else { return };
    assert_unavailable(&town.device(3).register("1.0.0").expect("an answer"));
    assert_unavailable(&known.ask_for_token().expect("an answer"));
    assert_unavailable(&known.download(&token, 0));
    assert_eq!(current.check_in("1.1.0")["status"], "OK", "what is known is answered");
    let (status, text) = town.publish("1.2.0", &image(100_000, 2));
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("free or repair the disk"), "{text}");
    let ran = town.data.run(&["owner", "create"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    assert!(ran.stderr.contains("free or repair the disk"), "{}", ran.stderr);
    assert!(town.count("otter_store_commits_failed_total") > 0);
    drop(failing);

    assert_eq!(town.device(4).check_in("1.0.0")["status"], "OK", "there is room again");
    let answer = known.download(&token, 0);
    assert!(answer.status == 200 && answer.body == bytes, "{}", answer.head);
    assert_eq!(known.download(&token, 0).status, 404, "it was given once");
    assert_eq!(town.publish("1.3.0", &image(100_000, 3)).0, 200);

    let town = town.restarted();
    assert_eq!(town.device(1).download(&token, 0).status, 404);
    let udids: Vec<_> = all_devices(&town.server.admin);
    assert!(udids.len() >= 3, "{udids:?}");
    assert_eq!(town.device(2).check_in("1.3.0")["status"], "OK");
    let log = town.server.stop().stderr;
    assert!(!log.contains("panic"), "{log}");
}

#[test]
fn a_disk_that_cannot_sync() {
    a_disk_fails("fsync,fdatasync", "EIO");
}

#[test]
fn a_disk_that_is_full() {
    a_disk_fails("pwrite64", "ENOSPC");
}

#[test]
fn a_disk_that_can_only_be_read() {
    a_disk_fails("pwrite64,ftruncate,fsync,fdatasync", "EROFS");
}

/// An image whose name may not be on the disk is not there: the next sync would not speak of it.
#[test]
fn a_directory_of_images_that_cannot_sync() {
    let town = Town::new();
    let images = town.data.path().join("images");
    let files = || {
        let entries = fs::read_dir(&images).expect("readable").map(|entry| entry.expect("ok"));
        entries.filter(|entry| entry.path().is_file()).count()
    };
    let before = files();
    let Some(failing) = Failing::on(town.server.pid(), &images, "fsync", "EIO") else { return };
    for _ in 0..2 {
        let (status, text) = town.publish("1.1.0", &image(5000, 1));
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("free or repair the disk"), "{text}");
        assert_eq!(files(), before);
    }
    drop(failing);
    assert_eq!(town.publish("1.1.0", &image(5000, 1)).0, 200);
    assert_eq!(files(), before + 1);
}

/// What a start on a directory says that it cannot write to.
#[test]
fn a_directory_that_can_only_be_read_is_named_at_the_start() {
    let data = Data::new();
    data.json(&["owner", "create"]);
    let path = data.path();
    let mounted = Mount::read_only(&path);
    if mounted.is_none() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).expect("set");
        if File::create(path.join("probe")).is_ok() {
            eprintln!("not tried: it can be written to nevertheless");
            return;
        }
    }
    for args in [&["serve", "--listen", "127.0.0.1:0"][..], &["owner", "list"]] {
        let ran = data.run(args);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(&path.display().to_string()), "{}", ran.stderr);
        assert!(ran.stderr.contains("must be on a local disk and belong to"), "{}", ran.stderr);
    }
    drop(mounted);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("set");
    assert_eq!(data.json(&["owner", "list"]).as_array().map(Vec::len), Some(1));
}

/// A file system of 4 MiB that fills up: the program, not only its store.
#[test]
fn a_file_system_that_fills_up() {
    let data = Data::new();
    fs::create_dir(data.path()).expect("made");
    let Some(_mount) = Mount::small(&data.path()) else {
        eprintln!("not tried: this process may not mount a file system");
        return;
    };
    let town = Town::on(data, &[]);
    town.device(1).check_in("1.0.0");
    let filler = town.data.path().join("filler");
    fill(&filler);
    // Some of what is there may still be used.
    let refused = (2..200).find(|n| town.device(*n).register("1.0.0").expect("ok").status == 503);
    let refused = refused.expect("a disk that is full");
    assert_unavailable(&town.device(refused).register("1.0.0").expect("an answer"));
    assert_eq!(town.device(1).check_in("1.0.0")["status"], "OK");
    let (status, text) = town.publish("1.1.0", &image(3 << 20, 1));
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("free or repair the disk"), "{text}");
    fs::remove_file(&filler).expect("removed");
    town.device(refused).check_in("1.0.0");
    let before = all_devices(&town.server.admin).len();
    assert_eq!(before, refused as usize);
    // And again, over a start.
    fill(&filler);
    let Town { data, server, owner, key } = town;
    server.kill();
    let ran = data.run(&["owner", "create"]);
    assert!(ran.code == 1 || ran.code == 5, "{}", ran.stderr);
    fs::remove_file(&filler).expect("removed");
    let server = data.serve();
    assert_eq!(all_devices(&server.admin).len(), before);
    Device::nth(server.http, &owner, &key, 1000).check_in("1.0.0");
    assert!(server.stop().status.success());
}

fn fill(path: &Path) {
    let mut file = File::create(path).expect("created");
    while file.write_all(&[0; 4096]).is_ok() {}
}

/// A file system that is mounted, until this is dropped.
struct Mount(PathBuf);

impl Mount {
    fn read_only(path: &Path) -> Option<Self> {
        let bound = mount(&["--bind"], path, path)?;
        let is_read_only = mount(&["-o", "remount,bind,ro"], path, path).map(std::mem::forget);
        is_read_only.map(|()| bound)
    }

    fn small(path: &Path) -> Option<Self> {
        mount(&["-t", "tmpfs", "-o", "size=4m,mode=0700"], Path::new("tmpfs"), path)
    }
}

fn mount(options: &[&str], from: &Path, to: &Path) -> Option<Mount> {
    let mounted = Command::new("mount").args(options).args([from, to]).output();
    mounted.is_ok_and(|ran| ran.status.success()).then(|| Mount(to.to_owned()))
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_system_without_memory_for_new_connections() {
    for (error, runtime) in [("ENOMEM", "mio"), ("EMFILE", "mio"), ("ENOMEM", "tokio")] {
        let town = Town::on(Data::new(), &["--runtime", runtime]);
        let device = town.device(1);
        device.check_in("1.0.0");
        let mut kept = TcpStream::connect(town.server.http).expect("connected");
        ask_for_health(&mut kept);
        let failing = Failing::of_workers(town.server.pid(), "accept4", error);
        let Some(failing) = failing else { return };
        let mut waiting = TcpStream::connect(town.server.http).expect("in the queue");
        wait_for("a pause", || (town.count("otter_accept_pauses_total") > 0).then_some(()));
        ask_for_health(&mut kept);
        drop(failing);
        ask_for_health(&mut waiting);
        device.check_in("1.0.0");
        let log = town.server.stop().stderr;
        assert!(log.contains("cannot accept; allow more open files"), "{log}");
    }
}

fn ask_for_health(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: otter\r\n\r\n").expect("sent");
    let (mut answer, end) = (Vec::new(), b"{\"healthcheck\":true}");
    while !answer.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
}

#[test]
fn a_database_with_changed_bytes_is_named_and_nothing_is_made_up() {
    let (mut refused, mut read) = (0, 0);
    let pages = fs::metadata(town_at_rest().path().join("otter.db")).expect("there").len() / 4096;
    for page in 0..pages {
        let data = town_at_rest();
        let path = data.path().join("otter.db");
        let file = File::options().write(true).open(&path).expect("writable");
        file.write_all_at(&[0xa5; 1000], page * 4096 + if page == 0 { 0 } else { 8 }).expect("ok");
        let list = data.run(&["device", "show", UDID]);
        if list.code == 0 {
            read += 1;
            continue;
        }
        let said = list.stderr;
        refused += 1;
        assert!(list.code == 1 || list.code == 5, "page {page}: {said}");
        assert!(said.contains("backup"), "page {page}: {said}");
    }
    eprintln!("of {pages} pages {refused} were missed, {read} not");
    assert!(refused >= 3, "{refused} of {pages}");
}

const UDID: &str = "5ccf7fee-1337-4000-8000-000000000001";

fn town_at_rest() -> Data {
    let town = Town::new();
    town.device(1).check_in("1.0.0");
    town.publish("1.1.0", &image(5000, 1));
    assert!(town.server.stop().status.success());
    town.data
}

#[test]
fn a_database_of_another_version_is_refused_with_what_to_do() {
    let data = town_at_rest();
    let path = data.path().join("otter.db");
    // `user_version`, in the header of SQLite's files.
    let file = File::options().write(true).open(&path).expect("writable");
    file.write_all_at(&77_u32.to_be_bytes(), 60).expect("written");
    let before = fs::read(&path).expect("readable");
    for args in [&["serve", "--listen", "127.0.0.1:0"][..], &["owner", "list"]] {
        let Ran { code, stderr, .. } = data.run(args);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("schema version 77"), "{stderr}");
        assert!(stderr.contains("install the newer release"), "{stderr}");
    }
    assert!(fs::read(&path).expect("readable") == before, "it is left alone");
}

#[test]
fn a_full_disk_at_the_start_is_said() {
    let data = town_at_rest();
    // The shell sees to it that the signal which goes with the limit is ignored.
    let program = command(&data.path());
    let ran = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .output()
        .expect("started");
    let ran = Ran::of(ran);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(&data.path().display().to_string()), "{}", ran.stderr);
    data.json(&["device", "show", UDID]);
}
