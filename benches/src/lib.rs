//! The harness of all measurements: a real `otter serve` as a child process, nginx beside it, and
//! devices that load them over loopback.
//!
//! Counts come first (instructions, heap calls, system calls, resident bytes): they do not depend
//! on how busy the machine is. See the `measure` program.

pub mod cpu;
pub mod loader;
pub mod peer;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A running server on a directory of its own. Killed when dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    data: tempfile::TempDir,
    /// The program that administers it; `None` of one that asks nobody who they are.
    program: Option<PathBuf>,
}

/// Whom to measure.
#[derive(Clone, Copy)]
pub enum Contestant<'a> {
    /// `otter serve` with one worker and its defaults; the path of the program.
    Otter(&'a Path),
    /// The same on a store: `memory`, or the URL of a Redis.
    OtterOn(&'a Path, &'a str),
    /// hyper and fred ([`peer`]) on the Redis of this URL; the path of a program that calls
    /// [`peer::serve`] if it is called with `peer URL`.
    Peer(&'a Path, &'a str),
    /// nginx with one worker that answers every request with a constant of the length of a
    /// check-in's reply. It reads the body and does not look at it.
    Nginx,
}

/// Who checks in.
pub struct Fleet {
    owner: String,
    key: String,
}

impl Server {
    /// Starts a contestant, under `wrapper` (such as `valgrind ...`) if that is not empty, and
    /// waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or ends before it is ready.
    pub fn start(contestant: Contestant<'_>, wrapper: &[&str]) -> Result<Self> {
        match contestant {
            Contestant::Otter(program) => Self::start_otter(program, None, wrapper),
            Contestant::OtterOn(program, store) => Self::start_otter(program, Some(store), wrapper),
            Contestant::Peer(program, redis) => {
                let words = [program.into(), "peer".into(), redis.into()];
                Self::start_ready(&words, wrapper, tempfile::tempdir()?, None)
            }
            Contestant::Nginx => Self::start_nginx(wrapper),
        }
    }

    fn start_nginx(wrapper: &[&str]) -> Result<Self> {
        let data = tempfile::tempdir()?;
        // Free now; nginx cannot choose one by itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let reply = format!("{{\"registration\":{{\"padding\":\"{}\"}}}}", "x".repeat(216));
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid;
             error_log stderr crit; events {{ worker_connections 20000; }}
             http {{ access_log off; keepalive_requests 1000000; keepalive_timeout 600;
               server {{ listen {address}; location / {{
                 default_type application/json; return 200 '{reply}'; }} }} }}"
        );
        std::fs::write(data.path().join("nginx.conf"), config)?;
        let mut words: Vec<_> = wrapper.iter().map(OsString::from).collect();
        words.push("nginx".into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["-c", "nginx.conf", "-p"])
            .arg(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {words:?}"))?;
        let mut server = Self { child, address, data, program: None };
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("nginx ended: {status}");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(server)
    }

    fn start_otter(program: &Path, store: Option<&str>, wrapper: &[&str]) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let mut words: Vec<OsString> = vec![program.into()];
        words.extend(["serve", "--listen", "127.0.0.1:0", "--workers", "1"].map(Into::into));
        words.extend(store.into_iter().flat_map(|store| ["--store", store]).map(Into::into));
        words.extend(["--data".into(), data.path().into()]);
        Self::start_ready(&words, wrapper, data, Some(program.into()))
    }

    /// Starts what prints a line with `http=<address>` once it is ready.
    fn start_ready(
        words: &[OsString],
        wrapper: &[&str],
        data: tempfile::TempDir,
        program: Option<PathBuf>,
    ) -> Result<Self> {
        let words: Vec<_> = wrapper.iter().map(OsString::from).chain(words.to_vec()).collect();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {words:?}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("http="));
        let Some(address) = address else { bail!("{words:?} did not become ready: {line:?}") };
        Ok(Self { child, address: address.parse()?, data, program })
    }

    /// Where devices reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id: of the wrapper, if there is one that does not `exec`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes an owner and a key.
    ///
    /// # Errors
    ///
    /// If the command line refuses.
    pub fn fleet(&self) -> Result<Fleet> {
        let Some(program) = &self.program else {
            return Ok(Fleet { owner: "a".repeat(64), key: "b".repeat(64) });
        };
        let owner = self.administer(program, &["owner", "create"], "owner")?;
        let key = self.administer(program, &["key", "create", "--owner", &owner], "key")?;
        Ok(Fleet { owner, key })
    }

    fn administer(&self, program: &Path, words: &[&str], field: &str) -> Result<String> {
        let output = Command::new(program)
            .args(words)
            .arg("--json")
            .arg("--data")
            .arg(self.data.path())
            .output()?;
        if !output.status.success() {
            bail!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(answer[field].as_str().context("no such field")?.to_owned())
    }

    /// Bytes of the process that are resident (`VmRSS`).
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    ///
    /// If it cannot be asked.
    pub fn stop(mut self) -> Result<()> {
        if !self.signal("-TERM") {
            bail!("kill failed");
        }
        self.child.wait()?;
        Ok(())
    }

    /// Under a tracer the server is its child.
    fn signal(&self, signal: &str) -> bool {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let own = self.pid().to_string();
        let pid = children.split_whitespace().next().unwrap_or(&own);
        Command::new("kill").args([signal, pid]).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already after `stop`, and nobody else has its number before `wait`.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("-KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fleet {
    /// The id of the owner.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The request of library 2.9.450 (docs/wire.md 1.1) as device number `n`, keeping the
    /// connection, and without the line end that the library sends behind the body: nginx would
    /// keep a buffer for it, and the comparison would be of that.
    #[must_use]
    pub fn check_in(&self, n: u32) -> Vec<u8> {
        self.check_in_of(n, "2.9.450")
    }

    /// The same by a device that runs another version.
    #[must_use]
    pub fn check_in_of(&self, n: u32, version: &str) -> Vec<u8> {
        let body = format!(
            concat!(
                r#"{{"registration":{{"mac":"5CCF7F{:06X}","version":"{}","owner":"{}","#,
                r#""alias":"unnamed","udid":"5ccf7fee-1337-4000-8000-{:012x}","#,
                r#""firmware":"thinx-lib-esp32-arduino:2.9.450","status":"Registered","#,
                r#""platform":"arduino:esp8266","fcid":"164020"}}}}"#
            ),
            n, version, self.owner, n
        );
        let head = format!(
            concat!(
                "POST /device/register HTTP/1.1\r\nHost: thinx.cloud\r\nAuthentication: {}\r\n",
                "Accept: application/json\r\nOrigin: device\r\nContent-Type: application/json\r\n",
                "User-Agent: THiNX-Client\r\nContent-Length: {}\r\n\r\n"
            ),
            self.key,
            body.len()
        );
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

/// Sends `request` and reads one whole answer; the connection stays open.
///
/// # Errors
///
/// If the connection fails or the answer is not 200.
pub fn exchange(connection: &mut TcpStream, request: &[u8]) -> Result<()> {
    connection.write_all(request)?;
    let mut answer = [0; 1024];
    let mut filled = 0;
    loop {
        let n = connection.read(&mut answer[filled..])?;
        if n == 0 {
            bail!("closed: {}", String::from_utf8_lossy(&answer[..filled]));
        }
        filled += n;
        if answer[..filled].ends_with(b"}}") {
            break;
        }
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        bail!("refused: {}", String::from_utf8_lossy(&answer[..filled]));
    }
    Ok(())
}

/// Opens `count` connections and registers one device over each.
///
/// # Errors
///
/// As [`exchange`].
pub fn connect(server: &Server, fleet: &Fleet, count: u32) -> Result<Vec<(TcpStream, Vec<u8>)>> {
    (0..count)
        .map(|n| {
            let mut connection = TcpStream::connect(server.address())?;
            connection.set_nodelay(true)?;
            let request = fleet.check_in(n);
            exchange(&mut connection, &request)?;
            Ok((connection, request))
        })
        .collect()
}
