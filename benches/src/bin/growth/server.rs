//! A contestant: `otter serve` on a store that is there already, or the floor.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use otter_benches::APART;

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From its start to its ready line.
    pub(crate) start: Duration,
}

impl Server {
    /// `otter serve` with its defaults on a data directory, or on the Redis of this URL; under
    /// `wrapper`, such as `valgrind ..`, if there is one.
    ///
    /// A check-in that says nothing new counts as steady for a day, so that those of devices that
    /// were registered long ago are what they would be ten minutes after each was kept.
    ///
    /// # Errors
    /// If it does not become ready.
    pub(crate) fn otter(
        program: &Path,
        data: &Path,
        store: Option<&str>,
        workers: usize,
        wrapper: &[&str],
    ) -> Result<Self> {
        let workers = workers.to_string();
        let mut words: Vec<OsString> = wrapper.iter().map(Into::into).collect();
        words.push(program.into());
        words.extend(["serve", "--listen", "127.0.0.1:0", "--workers", &workers].map(Into::into));
        words.extend(["--data".into(), data.into()]);
        words.extend(store.into_iter().flat_map(|store| ["--store".into(), store.into()]));
        // A wrapper makes it slow, and waiting costs nothing that is counted.
        let patience = ["OTTER_REDIS_TIMEOUT_MS", "OTTER_ANSWER_TIMEOUT_MS"];
        Self::start(&words, if wrapper == APART { &[] } else { &patience })
    }

    /// A server that answers a constant: see [`crate::floor`].
    ///
    /// # Errors
    /// If it does not become ready.
    pub(crate) fn floor(workers: usize) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut words: Vec<OsString> = APART.iter().map(Into::into).collect();
        words.extend([program.into(), "floor".into(), workers.to_string().into()]);
        Self::start(&words, &[])
    }

    fn start(words: &[OsString], minutes: &[&str]) -> Result<Self> {
        let begun = Instant::now();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env("OTTER_SEEN_RESOLUTION_S", "86400")
            // Others have their turns meanwhile.
            .env("OTTER_IDLE_TIMEOUT_S", "3600")
            .envs(minutes.iter().map(|name| (name, "60000")))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {words:?}"))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let start = begun.elapsed();
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("http="));
        let Some(address) = address else { bail!("{words:?} did not become ready: {line:?}") };
        Ok(Self { address: address.parse()?, child, start })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes that are resident.
    ///
    /// # Errors
    /// If the process is gone.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        Ok(number_behind(&status, "VmRSS:")? * 1024)
    }

    /// Bytes that it had the disk write so far.
    ///
    /// # Errors
    /// If the process is gone.
    pub(crate) fn written_bytes(&self) -> Result<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.pid()))?;
        number_behind(&io, "\nwrite_bytes:")
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub(crate) fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        ensure!(asked.success(), "kill failed");
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number behind a name in one of the system's tables.
///
/// # Errors
/// If there is none.
pub(crate) fn number_behind(text: &str, name: &str) -> Result<u64> {
    let (_, rest) = text.split_once(name).with_context(|| format!("no {name}"))?;
    rest.split_whitespace().next().context("no number")?.parse().context("no number")
}

/// Bytes of all files below.
///
/// # Errors
/// If they cannot be looked at.
pub(crate) fn disk_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
