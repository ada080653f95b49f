//! `otter import --watch`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::device::{image, sha256};
use crate::import::{Tree, envelope, udid, write_envelope};
use crate::program::{Data, command, text};

/// `otter import --watch` in a process of its own.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(data: &Data, tree: &Tree, quiet_ms: u32) -> Self {
        let mut child = command(&data.path())
            .args(["import", "--watch", "--json", "--quiet-ms", &quiet_ms.to_string()])
            .arg(&tree.root)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.starts_with("watching ") {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("readable") > 0, "it ended");
        }
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("it goes on").expect("readable");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn new_builds_are_picked_up_with_a_server_and_without() {
    for running in [true, false] {
        let data = Data::new();
        let server = running.then(|| data.serve());
        let tree = Tree::new(&data);
        let owner = "a1".repeat(32);
        let first = tree.place(&owner, &udid(1));
        write_build(&first, &owner, 1, "1.0.0", &image(20_000, 1));
        let mut watching = Watching::start(&data, &tree, 50);
        let line = watching.next();
        assert_eq!(
            (&line["result"], &line["udid"]),
            (&"published".into(), &udid(1).into()),
            "{line}"
        );
        // A directory that comes later, and a build that fails and is then repaired.
        let second = tree.place(&owner, &udid(2));
        write_build(&second, &owner, 2, "1.0.0", &image(500, 2));
        let line = watching.next();
        assert_eq!((&line["result"], &line["udid"]), (&"failed".into(), &udid(2).into()), "{line}");
        write_build(&second, &owner, 2, "1.0.1", &image(20_000, 2));
        let line = watching.next();
        assert_eq!((&line["result"], &line["version"]), (&"published".into(), &"1.0.1".into()));
        if server.is_none() {
            // It does not keep the store to itself.
            data.serve().kill();
        }
    }
}

/// A writer that replaces image and envelope in place, as THiNX' does, over and over: whatever is
/// published is one of its builds and never a mixture.
#[test]
fn a_mixture_of_two_builds_is_never_published() {
    let data = Data::new();
    let _server = data.serve();
    let tree = Tree::new(&data);
    let owner = "a1".repeat(32);
    let place = tree.place(&owner, &udid(1));
    let mut watching = Watching::start(&data, &tree, 100);
    let mut builds = BTreeMap::new();
    for n in 0..40_u8 {
        let version = format!("1.0.{n}");
        let bytes = image(200_000 + usize::from(n) * 1000, n);
        builds.insert(version.clone(), sha256(&bytes));
        write_build(&place, &owner, 1, &version, &bytes);
        if n % 4 == 3 {
            // The last of some writes that follow each other at once must be found.
            while watching.next()["version"] != version.as_str() {}
        }
    }
    let releases = data.json(&["release", "list"]);
    let releases = releases.as_array().expect("a list");
    assert!(releases.len() >= 10, "{releases:?}");
    for release in releases {
        assert_eq!(Some(&text(release, "sha256")), builds.get(&text(release, "version")));
    }
}

/// Writes both files in place, the image in pieces.
fn write_build(place: &Path, owner: &str, device: u32, version: &str, image: &[u8]) {
    let path = place.join("firmware.bin");
    let mut file =
        File::options().create(true).write(true).truncate(false).open(path).expect("open");
    file.seek(SeekFrom::Start(0)).expect("at the start");
    for piece in image.chunks(10_000) {
        file.write_all(piece).expect("written");
        file.flush().expect("written");
    }
    file.set_len(image.len() as u64).expect("cut");
    let mut envelope = envelope(owner, &udid(device), version);
    envelope["sha"] = sha256(image).into();
    write_envelope(place, &envelope);
    assert!(fs::metadata(place.join("build.json")).is_ok());
}
