//! Losses of power, on a disk as Linux has them: a `fsync` that fails has lost what was written
//! since the last one, and the next `fsync` does not speak of it any more.
//!
//! A real server runs under `strace`, which makes some `fsync`s of the database fail and notes what
//! was written and synced. From the notes follows what is on the disk when the power goes, and from
//! that a server must come up with everything that was ever acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::admin;
use crate::device::Device;
use crate::program::{Data, Server};
use crate::site::all_devices;
use crate::strace;

const FILES: [&str; 2] = ["otter.db", "otter.db-wal"];
/// Which `fsync`s fail of each server after the other. The first of a server makes durable what it
/// found; without that it cannot start.
const LIVES: [Option<&str>; 6] = [Some("4..6"), None, Some("9..11"), Some("6..20"), None, None];
const PAGE_BYTES: usize = 4096;

#[test]
fn what_was_acknowledged_is_on_the_disk_although_syncs_failed() {
    if !strace::is_here() {
        return;
    }
    let data = Data::new();
    let notes = data.beside("notes");
    let mut disk = Disk::default();
    // A directory with an owner, whose power went in a good moment.
    let server = traced(&data, &notes, None);
    let (owner, key) = admin::owner_with_key(&server.admin);
    server.kill();
    disk.read(&notes);
    let mut registered = BTreeSet::new();
    let mut refused = 0;
    for (life, failing) in LIVES.iter().enumerate() {
        // It starts with what the process before it left, not with what is on the disk: the system
        // has not gone down, and its memory has all that was written.
        let server = traced(&data, &notes, *failing);
        for n in 0..9 {
            let device = Device::nth(server.http, &owner, &key, (life * 100 + n) as u32);
            let answer = device.register("1.0.0").expect("an answer");
            match answer.status {
                200 => _ = registered.insert(device.udid),
                503 => refused += 1,
                status => panic!("{status}: {}", answer.text()),
            }
        }
        server.kill();
        disk.read(&notes);
        assert_lost_nothing(&disk, &registered, life);
    }
    eprintln!("{} acknowledged, {refused} refused, {} syncs failed", registered.len(), disk.failed);
    assert!(disk.failed >= 4 && refused >= 3, "{} syncs failed, {refused} refused", disk.failed);
}

/// A server whose `fsync`s of the database are noted, and fail from one number to another.
fn traced(data: &Data, notes: &Path, failing: Option<&str>) -> Server {
    let mut args = strace::noting(notes, "openat,pwrite64,fsync,fdatasync,ftruncate,unlink");
    args.extend(FILES.iter().flat_map(|file| {
        let path = data.path().join(file);
        ["-P".to_owned(), path.display().to_string()]
    }));
    args.extend(failing.into_iter().flat_map(|when| {
        ["-e".to_owned(), format!("inject=fsync,fdatasync:error=EIO:when={when}")]
    }));
    data.serve_under(&args)
}

/// Lets a server come up from what is on the disk.
fn assert_lost_nothing(disk: &Disk, registered: &BTreeSet<String>, life: usize) {
    let after = Data::new();
    std::fs::create_dir(after.path()).expect("made");
    for (name, file) in &disk.files {
        if let Some(bytes) = &file.durable {
            std::fs::write(after.path().join(name), bytes).expect("written");
        }
    }
    let server = after.serve();
    let known: BTreeSet<String> = all_devices(&server.admin)
        .iter()
        .map(|device| crate::program::text(device, "udid"))
        .collect();
    let lost: Vec<_> = registered.difference(&known).collect();
    assert!(lost.is_empty(), "life {life}: {} of {}: {lost:?}", lost.len(), registered.len());
    assert!(server.stop().status.success());
}

/// What is on a disk.
#[derive(Default)]
struct Disk {
    files: BTreeMap<String, File>,
    failed: u32,
}

/// A file: what programs see, what the disk has, and what differs.
#[derive(Default)]
struct File {
    seen: Vec<u8>,
    /// `None`: it is not there.
    durable: Option<Vec<u8>>,
    dirty: BTreeSet<usize>,
}

impl Disk {
    /// Goes through the notes of one process from its beginning to its end.
    fn read(&mut self, notes: &Path) {
        let text = std::fs::read_to_string(notes).expect("notes");
        let mut unfinished: HashMap<&str, &str> = HashMap::new();
        for line in text.lines() {
            let (thread, call) = line.split_once(' ').expect("a thread");
            let call = call.trim_start();
            if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, begun);
            } else if let Some(rest) = call.strip_prefix("<... ") {
                let begun = unfinished.remove(thread).expect("begun");
                let (_, rest) = rest.split_once(" resumed>").expect("resumed");
                self.call(&format!("{begun}{rest}"));
            } else {
                self.call(call);
            }
        }
        std::fs::remove_file(notes).expect("removed");
    }

    fn call(&mut self, call: &str) {
        let Some((call, result)) = call.rsplit_once(" = ") else { return };
        let Some((name, arguments)) = call.split_once('(') else { return };
        let strings = strace::strings(arguments);
        let path = strings.iter().map(|text| String::from_utf8_lossy(text)).find_map(|text| {
            let file = text.rsplit('/').next()?.to_owned();
            FILES.contains(&&*file).then_some(file)
        });
        let Some(path) = path else { return };
        let file = self.files.entry(path).or_default();
        let number = |text: &str| text.trim().trim_end_matches(')').parse::<usize>();
        match name {
            // A name is durable at once: whether it is has its own tests, and this is the database.
            "openat" => _ = file.durable.get_or_insert_default(),
            "pwrite64" => {
                let written: usize = result.parse().unwrap_or_default();
                let offset = number(arguments.rsplit(',').next().expect("an offset"));
                let bytes = strings.last().expect("bytes");
                file.write(&bytes[..written], offset.expect("a number"));
            }
            "fsync" | "fdatasync" => {
                self.failed += u32::from(result != "0");
                file.sync(result == "0");
            }
            "ftruncate" => {
                let length = number(arguments.rsplit(',').next().expect("a length"));
                file.truncate(length.expect("a number"));
            }
            "unlink" => *file = File::default(),
            _ => {}
        }
    }
}

impl File {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
    }

    /// What failed is not dirty any more either: that is the worst that systems do.
    fn sync(&mut self, succeeded: bool) {
        let dirty = std::mem::take(&mut self.dirty);
        let durable = self.durable.get_or_insert_default();
        if succeeded {
            durable.resize(self.seen.len(), 0);
            for page in dirty {
                let range = page * PAGE_BYTES..((page + 1) * PAGE_BYTES).min(self.seen.len());
                durable[range.clone()].copy_from_slice(&self.seen[range]);
            }
        }
    }

    fn truncate(&mut self, length: usize) {
        self.seen.resize(length, 0);
        if let Some(durable) = &mut self.durable {
            durable.truncate(length);
        }
        self.dirty.retain(|page| page * PAGE_BYTES < length);
    }
}
