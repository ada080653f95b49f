//! A `redis-server` process in a directory and on a port of its own.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within a minute: then the text says what was waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited for {what} for {PATIENCE:?}");
        thread::sleep(PAUSE);
    }
}

/// A port of loopback that nobody else gets while this lives, whether or not a server listens on
/// it.
///
/// It is kept by a socket that is bound and never listens. The system then gives the port neither
/// to connections nor to others who want any free one; a server that names it, and sets
/// `SO_REUSEADDR` as Redis does, gets it. Without this a port could be lost between a kill and a
/// restart, even to a client whose connection attempt meets itself.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _reservation: Socket,
}

impl Port {
    pub(super) fn reserve() -> Self {
        let reserve = || -> io::Result<Self> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            let address = socket.local_addr()?.as_socket();
            let number = address.map(|address| address.port()).unwrap_or_default();
            Ok(Self { number, _reservation: socket })
        };
        reserve().expect("a free port")
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }
}

#[derive(Debug)]
pub(super) struct Process {
    child: Option<Child>,
    directory: tempfile::TempDir,
    port: Port,
    /// What stands behind the configuration on the command line.
    arguments: &'static [&'static str],
}

impl Process {
    pub(super) fn new(arguments: &'static [&'static str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { child: None, directory, port: Port::reserve(), arguments }
    }

    /// What the process reads at each start, and may change itself.
    pub(super) fn write_config(&self, text: &str) {
        std::fs::write(self.directory().join(CONFIG), text).expect("written");
    }

    /// Does not wait until it answers.
    pub(super) fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log()).expect("a log");
        let errors = log.try_clone().expect("a log");
        let spawned = Command::new("redis-server")
            .arg(CONFIG)
            .args(self.arguments)
            .current_dir(self.directory())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        match spawned {
            Ok(child) => self.child = Some(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => panic!(
                "redis-server is not installed; tests/run installs it (Debian: apt-get install \
                 redis-server)"
            ),
            Err(error) => panic!("redis-server cannot be started: {error}"),
        }
    }

    /// Panics with its log if it has ended by itself.
    pub(super) fn assert_running(&mut self) {
        let child = self.child.as_mut().expect("started");
        if let Some(status) = child.try_wait().expect("known") {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            panic!("redis-server ended: {status}\n{log}");
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let pid = Pid::from_child(child);
        wait_for("redis-server to end", || {
            // Again and again: while it writes its first append-only file it refuses to end, and
            // forgets that it was asked.
            let _ = kill_process(pid, Signal::TERM);
            let _ = kill_process(pid, Signal::CONT);
            child.try_wait().ok().flatten()
        });
        self.child = None;
    }

    pub(super) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("signalled");
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self) -> PathBuf {
        self.directory().join("redis.log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What servers and sentinels have in common: loopback only, and a user for the tests who may do
/// everything, beside those whom a test is about.
pub(super) fn common_config() -> String {
    format!("bind 127.0.0.1\ndaemonize no\nuser {USER} on >{PASSWORD} ~* &* +@all\n")
}

/// The user of [`common_config`].
pub(super) const USER: &str = "harness";
pub(super) const PASSWORD: &str = "harness";

const CONFIG: &str = "redis.conf";
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);
