//! The harness of all measurements: a real `otter serve` as a child process, nginx beside it, and
//! devices that load them over loopback.
//!
//! Counts come first (instructions, heap calls, system calls, resident bytes): they do not depend
//! on how busy the machine is. The `compare` program puts all of it together; the others show parts
//! of it at greater length.

pub mod contest;
pub mod counts;
pub mod cpu;
pub mod durable;
pub mod loader;
mod nginx;
pub mod plot;
pub mod redis;
pub mod report;
pub mod rivals;
pub mod rounds;
pub mod seal;
pub mod tls;

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use nginx::Downloads;
use tls::Certificate;

/// A running server on a directory of its own. Killed when dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
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
    /// The same as the first, which also listens for TLS with this certificate.
    OtterTls(&'a Path, &'a Certificate),
    /// One of ours to compare with ([`rivals`]): the path of a program that passes these words on
    /// to [`rivals::serve`], or of another one that prints `ready http=<address>`. Its folder is
    /// where [`Server::publish`] puts images.
    Rival(&'a Path, &'a [&'a str]),
    /// nginx with one worker that answers every request with a constant of the length of a
    /// check-in's reply. It reads the body and does not look at it.
    Nginx,
    /// The same, told what is best for downloads over loopback: `tcp_nopush off`, send buffers of
    /// 256 KiB.
    NginxTuned,
    /// As [`Contestant::Nginx`], which also listens for TLS with this certificate: Debian's
    /// settings, with a cache of sessions, so that those without tickets resume, too.
    NginxTls(&'a Certificate),
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
            Contestant::Otter(program) => Self::start_otter(program, &[], wrapper),
            Contestant::OtterOn(program, store) => {
                Self::start_otter(program, &["--store".as_ref(), store.as_ref()], wrapper)
            }
            Contestant::OtterTls(program, certificate) => {
                let (pem, key) = (certificate.pem(), certificate.key());
                let mut words = ["--tls-listen", "127.0.0.1:0", "--cert"].map(OsStr::new).to_vec();
                words.extend([pem.as_os_str(), "--key".as_ref(), key.as_os_str()]);
                Self::start_otter(program, &words, wrapper)
            }
            Contestant::Rival(program, words) => {
                let words = words.iter().map(OsString::from);
                let words: Vec<_> = std::iter::once(program.into()).chain(words).collect();
                Self::start_ready(&words, wrapper, tempfile::tempdir()?, None)
            }
            Contestant::Nginx => Self::start_nginx(Downloads::Stock, None, wrapper),
            Contestant::NginxTuned => Self::start_nginx(Downloads::Tuned, None, wrapper),
            Contestant::NginxTls(certificate) => {
                Self::start_nginx(Downloads::Stock, Some(certificate), wrapper)
            }
        }
    }

    /// Whether there is an nginx to compare with.
    #[must_use]
    pub fn has_nginx() -> bool {
        nginx::program().is_some()
    }

    fn start_nginx(
        downloads: Downloads,
        certificate: Option<&Certificate>,
        wrapper: &[&str],
    ) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let address = nginx::free_address()?;
        let tls_address = certificate.map(|_| nginx::free_address()).transpose()?;
        let secure = tls_address.zip(certificate);
        let configuration = nginx::configuration(address, downloads, secure);
        std::fs::write(data.path().join("nginx.conf"), configuration)?;
        let mut words: Vec<_> = wrapper.iter().map(OsString::from).collect();
        words.push(nginx::program().context("there is no nginx here")?.into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {words:?}"))?;
        let mut server = Self { child, address, tls_address, data, program: None };
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("nginx ended: {status}");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(server)
    }

    fn start_otter(program: &Path, more: &[&OsStr], wrapper: &[&str]) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let mut words: Vec<OsString> = vec![program.into()];
        words.extend(["serve", "--listen", "127.0.0.1:0", "--workers", "1"].map(Into::into));
        words.extend(more.iter().map(Into::into));
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
        let mut command = Command::new(&words[0]);
        if program.is_none() {
            // Where its images will be.
            command.current_dir(data.path());
        }
        let mut child = command
            .args(&words[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {words:?}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let of = |name| line.split_whitespace().find_map(|word| word.strip_prefix(name));
        let Some(address) = of("http=") else { bail!("{words:?} did not become ready: {line:?}") };
        let tls_address = of("https=").map(str::parse).transpose()?;
        Ok(Self { child, address: address.parse()?, tls_address, data, program })
    }

    /// Where devices reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where devices reach it over TLS.
    ///
    /// # Errors
    ///
    /// If it does not speak TLS.
    pub fn tls_address(&self) -> Result<SocketAddr> {
        self.tls_address.context("the server did not say where it listens for TLS")
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
            return Ok(Fleet::of_anybody());
        };
        let owner = self.administer(program, &["owner", "create"], "owner")?;
        let key = self.administer(program, &["key", "create", "--owner", &owner], "key")?;
        Ok(Fleet { owner, key })
    }

    /// Offers `image` to device number `n`; returns the target of a request for it.
    ///
    /// From Otter that takes a token. It may be used as often as one likes for ranges that end
    /// before the last 4096 bytes (docs/token.md). nginx serves a file.
    ///
    /// # Errors
    ///
    /// If the device cannot check in, or the command line refuses.
    pub fn publish(&self, fleet: &Fleet, n: u32, image: &[u8]) -> Result<String> {
        let file = self.data.path().join(format!("{n}.bin"));
        std::fs::write(&file, image)?;
        let Some(program) = &self.program else { return Ok(format!("/images/{n}.bin")) };
        let mut connection = TcpStream::connect(self.address)?;
        exchange(&mut connection, &fleet.check_in(n))?;
        let (file, device) = (file.display().to_string(), Fleet::udid(n));
        let release = ["--version", "1.1.0", "--platform", "arduino"];
        let whose = ["publish", &file, "--owner", fleet.owner(), "--device", &device];
        self.administer(program, &[&whose[..], &release].concat(), "release")?;
        self.administer(program, &["token", "issue", "--device", &device], "path")
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

    /// The process of the server itself: under a tracer that is a child.
    #[must_use]
    pub fn inner_pid(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let first = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        first.unwrap_or_else(|| self.pid())
    }

    fn signal(&self, signal: &str) -> bool {
        let pid = self.inner_pid().to_string();
        Command::new("kill").args([signal, &pid]).status().is_ok_and(|status| status.success())
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
    /// Devices of a server that asks nobody who they are.
    #[must_use]
    pub fn of_anybody() -> Self {
        Self { owner: "a".repeat(64), key: "b".repeat(64) }
    }

    /// The id of the owner.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    fn udid(n: u32) -> String {
        format!("5ccf7fee-1337-4000-8000-{n:012x}")
    }

    /// The request of library 2.9.450 (docs/wire.md 1.1) as device number `n`, keeping the
    /// connection, and without the line end that the library sends behind the body: nginx would
    /// keep a buffer for it, and the comparison would be of that.
    #[must_use]
    pub fn check_in(&self, n: u32) -> Vec<u8> {
        self.check_in_of(n, "2.9.450")
    }

    /// The same on a connection that ends with the answer.
    #[must_use]
    pub fn last_check_in(&self, n: u32) -> Vec<u8> {
        with_header(&self.check_in(n), b"Connection: close\r\n")
    }

    /// The pieces in which a device sends a check-in, line by line: eleven with the header that
    /// keeps the connection.
    #[must_use]
    pub fn check_in_by_line(&self, n: u32) -> Vec<Vec<u8>> {
        let request = with_header(&self.check_in(n), b"Connection: keep-alive\r\n");
        request.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
    }

    /// The same by a device that runs another version.
    #[must_use]
    pub fn check_in_of(&self, n: u32, version: &str) -> Vec<u8> {
        let body = format!(
            concat!(
                r#"{{"registration":{{"mac":"5CCF7F{:06X}","version":"{}","owner":"{}","#,
                r#""alias":"unnamed","udid":"{}","#,
                r#""firmware":"thinx-lib-esp32-arduino:2.9.450","status":"Registered","#,
                r#""platform":"arduino:esp8266","fcid":"164020"}}}}"#
            ),
            n,
            version,
            self.owner,
            Self::udid(n)
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

fn with_header(request: &[u8], header: &[u8]) -> Vec<u8> {
    let line = request.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    [&request[..line], header, &request[line..]].concat()
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

/// A wrapper: the server ends with this program.
pub const BOUND: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// A wrapper: the server is in a session of its own, which can be preferred ([`cpu::prefer`]), and
/// which ends with this program.
pub const APART: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "setsid"];
