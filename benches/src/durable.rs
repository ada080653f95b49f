//! What a durable write costs: the embedded store's group commit beside a bare log.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use otter_protocol::{CheckIn, DeviceId, Mac, OwnerId, Record};
use otter_store::{Answer, Embedded, EmbeddedOptions, EmbeddedStore, Image, Query, Store, Ticket};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::rounds::Spread;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// An append of 240 bytes each to one file, one `fdatasync` for the group, and a table in
    /// memory.
    Log,
    /// [`Embedded`]: check-ins that say something new, all of them in one turn.
    Store,
}

/// What a write cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From the question to the answer, divided by the writes of the group: the median of the
    /// turn, as a disk is sometimes busy with others.
    pub us: f64,
    /// CPU time of this process for it.
    pub cpu_us: f64,
    /// The median of `fdatasync` alone, in ms; of the log only.
    pub sync_ms: f64,
}

/// Both of them on one file system.
pub struct Writers {
    log: File,
    table: HashMap<[u8; 36], [u8; 200]>,
    store: EmbeddedStore,
    bell: Receiver<()>,
    /// Counts the groups, so that each says something new.
    groups: u64,
    _kept: (Embedded, TempDir),
}

impl Writers {
    /// Both of them below `folder`, with so many devices.
    ///
    /// # Errors
    /// If there is no room.
    pub fn new(folder: &Path) -> Result<Self> {
        let directory = tempfile::tempdir_in(folder)?;
        let log = File::create(directory.path().join("log"))?;
        let embedded = Embedded::open(&directory.path().join("store"), EmbeddedOptions::default())?;
        embedded.operator().create_owner(Some(owner()?))?;
        let (ring, bell) = mpsc::channel();
        let store = embedded.store(Arc::new(move || {
            // Nobody listens at the end.
            let _ = ring.send(());
        }));
        let kept = (embedded, directory);
        let table = HashMap::new();
        let mut writers = Self { log, table, store, bell, groups: 0, _kept: kept };
        for first in (0..DEVICES).step_by(GROUP as usize) {
            writers.record(queries(first, 0)?)?;
        }
        Ok(writers)
    }

    /// Writes groups for a while.
    ///
    /// # Errors
    /// If one is not kept.
    pub fn write(&mut self, writer: Writer) -> Result<Cost> {
        let (mut syncs, mut groups, mut queries) = (Vec::new(), Vec::new(), Vec::new());
        for group in self.groups..self.groups + GROUPS {
            queries.push(self::queries(group * GROUP * 7_919 % DEVICES, group + 1)?);
        }
        let cpu = cpu_time();
        for (group, queries) in (self.groups..).zip(queries) {
            let start = Instant::now();
            match writer {
                Writer::Log => syncs.push(self.append(group)?),
                Writer::Store => self.record(queries)?,
            }
            groups.push(start.elapsed());
        }
        let cpu = cpu_time() - cpu;
        self.groups += GROUPS;
        let median = |times: Vec<Duration>| {
            Spread::of(times.into_iter().map(|time| time.as_secs_f64())).median
        };
        Ok(Cost {
            us: median(groups) * 1e6 / GROUP as f64,
            cpu_us: cpu.as_secs_f64() * 1e6 / (GROUPS * GROUP) as f64,
            sync_ms: median(syncs) * 1e3,
        })
    }

    fn append(&mut self, group: u64) -> Result<Duration> {
        let mut records = Vec::with_capacity(GROUP as usize * RECORD_BYTES);
        for number in 0..GROUP {
            let (mut key, value) = ([0; 36], [group as u8; 200]);
            key[..8].copy_from_slice(&(group * GROUP + number).wrapping_mul(ODD).to_le_bytes());
            records.extend_from_slice(&(key.len() as u32 + value.len() as u32).to_le_bytes());
            records.extend_from_slice(&key);
            records.extend_from_slice(&value);
            self.table.insert(key, value);
        }
        ensure!(records.len() == GROUP as usize * RECORD_BYTES, "records of another length");
        self.log.write_all(&records)?;
        let start = Instant::now();
        self.log.sync_data()?;
        Ok(start.elapsed())
    }

    fn record(&mut self, queries: Vec<Query>) -> Result<()> {
        let asked = queries.len();
        let mut queries = queries.into_iter().map(|query| (Ticket(0), query)).collect();
        self.store.submit(&mut queries);
        let mut answers: Vec<(Ticket, Answer<Image>)> = Vec::new();
        loop {
            self.store.collect(&mut answers);
            if answers.len() >= asked {
                break;
            }
            self.bell.recv_timeout(PATIENCE).context("the store does not answer")?;
        }
        for (_, answer) in answers {
            if !matches!(answer, Answer::Recorded(Some(_))) {
                bail!("not kept");
            }
        }
        Ok(())
    }
}

/// A check-in of each device of a group.
fn queries(first: u64, time: u64) -> Result<Vec<Query>> {
    (first..first + GROUP).map(|number| query(number % DEVICES, time)).collect()
}

fn query(number: u64, time: u64) -> Result<Query> {
    let version = format!("1.{}.{time}", number % 20);
    let facts = format!(
        "{{\"mac\":\"{number:012X}\",\"firmware\":\"thinx-lib-esp8266-arduino:{version}\",\
         \"version\":\"{version}\",\"platform\":\"arduino:esp8266\",\"status\":\"Registered\"}}"
    );
    let check_in = CheckIn {
        mac: Mac::from_bits(number),
        alias: None,
        version: Some(version.into()),
        platform: Some("arduino:esp8266".into()),
        env_hash: None,
        facts: facts.into(),
        digest: number ^ time << 32,
        told_auto_update: false,
    };
    let device = DeviceId(u128::from(number + 1).wrapping_mul(u128::from(ODD)).to_be_bytes());
    let (device, check_in) = (Some(device), Some(check_in));
    let record = Record { owner: owner()?, device, check_in, offered: None, grant: None };
    Ok(Query::Record(Box::new(record)))
}

fn owner() -> Result<OwnerId> {
    OwnerId::parse(&"0123456789abcdef".repeat(4)).context("no owner id")
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Writes of one commit.
const GROUP: u64 = 64;
/// Commits of a turn.
const GROUPS: u64 = 50;
const DEVICES: u64 = 64 * 128;
/// A length, a key of 36 bytes and a value of 200.
const RECORD_BYTES: usize = 240;
/// Makes numbers look random.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_write_what_they_are_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writers = Writers::new(folder.path()).expect("writers");
        let store = writers.write(Writer::Store).expect("kept");
        let log = writers.write(Writer::Log).expect("kept");
        assert!(store.us > 0.0 && log.us > 0.0 && log.sync_ms > 0.0, "{store:?} {log:?}");
        let length = writers.log.metadata().expect("a file").len();
        assert_eq!(length, GROUPS * GROUP * RECORD_BYTES as u64);
    }
}
