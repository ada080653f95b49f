//! One image by token to ten thousand slow devices at the same time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use otter_benches::{APART, cpu};
use otter_tests::Random;
use otter_tests::slow::{Stream, Way};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fleet::Fleet;
use crate::server::{Server, number_behind};
use crate::{Plan, fill};

/// Prints what they took, and how many failed.
///
/// # Errors
/// If the server fails, or devices cannot be connected.
pub(crate) fn measure(plan: &Plan, out: &mut impl Write) -> Result<()> {
    raise_open_files()?;
    let fleet = Fleet::of_owners(DEVICES, 1)?;
    let directory = tempfile::tempdir()?;
    fill::fill(&directory.path().display().to_string(), &fleet)?;
    let server = Server::otter(&plan.otter, directory.path(), None, 1, &APART)?;
    let mut image = Random::new(7).bytes::<IMAGE_BYTES>().to_vec();
    // As an image for ESP chips begins.
    image[0] = 0xe9;
    publish(plan, directory.path(), &fleet, &image)?;
    let tokens: Result<Vec<_>> =
        (0..DEVICES).map(|number| token(server.address, &fleet.token_request(number))).collect();
    let tokens = tokens?;

    let kernel_before = kernel_bytes()?;
    let resident_before = server.resident_bytes()?;
    let used_before = cpu::used_ns(server.pid())?;
    let begun = Instant::now();
    let devices: Result<Vec<_>> =
        tokens.iter().map(|token| Device::ask(server.address, token)).collect();
    let mut crowd = Crowd { devices: devices?, done: 0, failed: 0, first: None };
    let (mut resident, mut kernel) = (resident_before, kernel_before);
    while crowd.turn(&image) {
        // What of all images is on its way hides what is mapped once.
        resident = resident.max(server.resident_bytes()?);
        kernel = kernel.max(kernel_bytes()?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = (cpu::used_ns(server.pid())? - used_before) as f64 / 1e9;
    let gib = (crowd.done * IMAGE_BYTES as u64) as f64 / f64::from(1 << 30);
    let each = |bytes: u64| bytes as f64 / DEVICES as f64;
    let first = crowd.first.map_or(f64::NAN, |first| (first - begun).as_secs_f64());
    writeln!(out, "\n{DEVICES} downloads of one image of 1 MiB at the same time, 4 KiB at a time")?;
    writeln!(out, "complete {}, failed {}", crowd.done, crowd.failed)?;
    writeln!(out, "first ended after {first:.1} s, the last after {seconds:.1} s")?;
    writeln!(
        out,
        "CPU of the server {:.2} s per GiB; resident {:.0} bytes per download (at most {:.1} MiB \
         in all); the kernel's buffers {:.0} bytes per download, of both sides",
        cpu / gib,
        each(resident - resident_before),
        resident as f64 / f64::from(1 << 20),
        each(kernel - kernel_before),
    )?;
    Ok(())
}

/// As the operator does.
fn publish(plan: &Plan, data: &Path, fleet: &Fleet, image: &[u8]) -> Result<()> {
    let file = data.join("image.bin");
    std::fs::write(&file, image)?;
    let output = Command::new(&plan.otter)
        .arg("publish")
        .arg(&file)
        .args(["--owner", fleet.owner_of(0).id.as_str(), "--version", "3.0.0"])
        .args(["--platform", "arduino", "--all"])
        .arg("--data")
        .arg(data)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What a device is given that asks for a token.
fn token(server: SocketAddr, request: &[u8]) -> Result<String> {
    let mut connection = TcpStream::connect(server)?;
    connection.write_all(request)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (_, rest) = answer.split_once(r#"{"ott":""#).with_context(|| answer.clone())?;
    rest.get(..64).map(str::to_owned).with_context(|| answer.clone())
}

/// A device that downloads.
struct Device {
    stream: TcpStream,
    head: Vec<u8>,
    /// How much of the image it has.
    at: usize,
}

/// All of them, in the hands of one thread.
struct Crowd {
    /// Those that are not done.
    devices: Vec<Device>,
    done: u64,
    failed: u64,
    /// When the first one was done.
    first: Option<Instant>,
}

impl Crowd {
    /// Lets each device read once, in turn, so that all are equally far; false when none is left.
    fn turn(&mut self, image: &[u8]) -> bool {
        let mut is_idle = true;
        let mut at = 0;
        while let Some(device) = self.devices.get_mut(at) {
            match device.read(image) {
                Ok(Progress::Nothing) => at += 1,
                Ok(Progress::Some) => {
                    is_idle = false;
                    at += 1;
                }
                Ok(Progress::Done) => {
                    self.done += 1;
                    self.first.get_or_insert_with(Instant::now);
                    self.devices.swap_remove(at);
                }
                Err(_) => {
                    self.failed += 1;
                    self.devices.swap_remove(at);
                }
            }
        }
        if is_idle {
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.devices.is_empty()
    }
}

enum Progress {
    Nothing,
    Some,
    Done,
}

impl Device {
    /// Connects with a small receive buffer and asks.
    fn ask(server: SocketAddr, token: &str) -> Result<Self> {
        let Stream::Plain(mut stream) = Way::Plain.connect(server)? else { bail!("TLS") };
        write!(stream, "GET /device/firmware?ott={token} HTTP/1.0\r\n\r\n")?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, head: Vec::new(), at: 0 })
    }

    /// Reads what is there, 4 KiB at most, and holds it against the image.
    fn read(&mut self, image: &[u8]) -> io::Result<Progress> {
        let mut buffer = [0; 4096];
        let n = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Nothing),
            Err(error) => return Err(error),
        };
        let mut bytes = &buffer[..n];
        if self.at == 0 {
            self.head.extend_from_slice(bytes);
            let end = self.head.windows(4).position(|end| end == b"\r\n\r\n");
            let Some(end) = end else { return Ok(Progress::Some) };
            if !self.head.starts_with(b"HTTP/1.1 200 ") {
                return Err(ErrorKind::InvalidData.into());
            }
            bytes = &bytes[n - (self.head.len() - end - 4)..];
        }
        if !image[self.at..].starts_with(bytes) {
            return Err(ErrorKind::InvalidData.into());
        }
        self.at += bytes.len();
        if self.at > 0 {
            self.head = Vec::new();
        }
        Ok(if self.at == image.len() { Progress::Done } else { Progress::Some })
    }
}

/// Memory of all sockets of this machine, as the kernel accounts for it.
fn kernel_bytes() -> Result<u64> {
    let table = std::fs::read_to_string("/proc/net/sockstat")?;
    let (_, tcp) = table.split_once("TCP:").context("no TCP")?;
    Ok(number_behind(tcp, "mem ")? * 4096)
}

/// Each device needs one file here.
fn raise_open_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    ensure!(maximum.is_none_or(|most| most > DEVICES + 100), "{maximum:?} open files are too few");
    let raised = Rlimit { current: maximum.or(Some(DEVICES * 2)), maximum };
    setrlimit(Resource::Nofile, raised).context("the limit of open files stays")
}

const DEVICES: u64 = 10_000;
const IMAGE_BYTES: usize = 1 << 20;
