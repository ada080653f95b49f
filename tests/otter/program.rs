//! Starting the program, and stopping it in every way.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// A data directory, and what runs on it.
pub(crate) struct Data {
    dir: tempfile::TempDir,
}

impl Data {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// The data directory. It does not exist until a command makes it.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A place for other files.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command on it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let output = command(&self.path()).args(args).output().expect("the program runs");
        Ran::of(output)
    }

    /// Runs a command that must succeed, and takes its JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).expect("JSON")
    }

    /// Starts a server on a free port and waits until it is ready.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[], &[])
    }

    pub(crate) fn serve_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Server {
        Server::start(&self.path(), args, variables)
    }

    /// The same as a child of another program, which gets the server and its arguments as its own.
    /// [`Server::kill`] and [`Server::stop`] reach the server through that program's process group.
    pub(crate) fn serve_under(&self, program: &[String]) -> Server {
        let server = command(&self.path());
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).arg(server.get_program()).args(server.get_args());
        command.env_clear().envs(std::env::vars().filter(|(name, _)| !is_setting(name)));
        command.arg("serve").args(["--listen", "127.0.0.1:0"]).process_group(0);
        let mut server = Server::of(command);
        server.in_group = true;
        server
    }
}

/// What a command that ended left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("an exit code"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// A server that runs. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    /// Is it the child of our child, with which it is in a process group?
    in_group: bool,
    stdout: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<String>>,
    /// Where devices connect without TLS; port 0 if they cannot.
    pub(crate) http: SocketAddr,
    /// Where they connect by TLS.
    pub(crate) https: Vec<SocketAddr>,
    /// Where other servers fetch images, if they may.
    pub(crate) images: Option<SocketAddr>,
    pub(crate) admin: PathBuf,
}

impl Server {
    pub(crate) fn start(data: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command(data);
        command
            .arg("serve")
            .args(if args.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
            .args(args)
            .envs(variables.iter().copied());
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the program starts");
        let mut stderr = child.stderr.take().expect("a pipe");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("UTF-8");
            text
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("readable");
        let Some((places, admin)) = line
            .strip_prefix("ready ")
            .and_then(|rest| rest.trim_end_matches('\n').split_once(" admin="))
        else {
            let _ = child.kill();
            panic!("not ready: {line:?}\n{}", reader.join().expect("text"));
        };
        let place = |name: &str| {
            let mut pairs = places.split(' ').filter_map(|place| place.split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, addresses)| addresses)
        };
        let address = |text: &str| text.parse().expect("an address");
        let http = place("http").map_or(NOWHERE, address);
        let https =
            place("https").into_iter().flat_map(|all| all.split(',')).map(address).collect();
        let images = place("images").map(address);
        let admin = PathBuf::from(admin);
        let stderr = Some(reader);
        Self { child, in_group: false, stdout, stderr, http, https, images, admin }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("ended");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        let signalled =
            if self.in_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        signalled.expect("signalled");
    }

    /// SIGTERM, and waits for the end; returns what it wrote.
    pub(crate) fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for the end.
    pub(crate) fn ended(mut self) -> Ended {
        let status = self.child.wait().expect("ended");
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).expect("UTF-8");
        let stderr = self.stderr.take().map(|reader| reader.join().expect("text"));
        Ended { status, stdout, stderr: stderr.unwrap_or_default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.in_group {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// After the line that says that it is ready.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program on a data directory, untouched by the environment of the tests.
pub(crate) fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otter"));
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| is_setting(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").arg("--data").arg(data);
    command
}

fn is_setting(variable: &str) -> bool {
    variable.starts_with("OTTER_")
}

/// The keys of an object, sorted.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The text of a member.
pub(crate) fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_else(|| panic!("{member} in {value}")).to_owned()
}

/// Where nobody listens.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
