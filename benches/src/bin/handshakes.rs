//! What a TLS handshake costs the server, full and resumed, with the tickets and the cache of
//! sessions of `otter serve`; and what a cached session takes.
//!
//! ```text
//! cargo run --release -p otter-benches --bin handshakes
//! ```
//!
//! In memory, without sockets: CPU time of the server's side alone, on the clock of the thread.
//! Kinds take turns in each round; a ratio is that of two kinds in the same round, and medians over
//! all rounds are printed, with the quartiles. Certificate ECDSA P-256, key exchange P-256.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use otter_store::{Memory, MemoryOptions};
use otter_tests::handshake::{Identity, shake};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use rustls::time_provider::DefaultTimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ServerConfig, SupportedProtocolVersion};

use sessions::{SESSIONS_MAX, Sessions};
use tickets::Tickets;

#[path = "../../../src/tls/sessions.rs"]
mod sessions;
#[path = "../../../src/tls/tickets.rs"]
#[expect(dead_code, reason = "one realm is measured")]
mod tickets;

const HELP: &str = "\
usage: handshakes [--rounds N]

  --rounds N  how often each kind of handshake has its turn [default: 31]";

const ROUNDS: usize = 31;
/// Handshakes of a turn.
const TURN: u32 = 64;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mut rounds = ROUNDS;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => rounds = words.next().context(HELP)?.parse().context(HELP)?,
            "--help" => return Ok(writeln!(std::io::stdout(), "{HELP}")?),
            _ => anyhow::bail!("{HELP}"),
        }
    }
    let mut out = std::io::stdout();
    memory(&mut out)?;
    let kinds = kinds()?;
    // The first round warms up.
    measure(&kinds)?;
    let measured: Vec<_> = (0..rounds.max(1)).map(|_| measure(&kinds)).collect::<Result<_>>()?;
    writeln!(
        out,
        "\n{:38} {:>8} {:>16} {:>8} {:>16} {:>6}",
        "CPU of the server per handshake", "us", "quartiles", "of full", "quartiles", "bytes"
    )?;
    for (place, kind) in kinds.iter().enumerate() {
        let of = |at| quantile(measured.iter().map(|round| round[place].us), at);
        let full = kinds.iter().position(|other| {
            std::ptr::eq(other.version, kind.version) && other.resumed == HandshakeKind::Full
        });
        let full = full.context("no full handshake")?;
        let ratio = |at| quantile(measured.iter().map(|r| r[place].us / r[full].us), at);
        writeln!(
            out,
            "{:38} {:8.1} {:7.1} ..{:6.1} {:8.2} {:7.2} ..{:6.2} {:6}",
            kind.what,
            of(0.5),
            of(0.25),
            of(0.75),
            ratio(0.5),
            ratio(0.25),
            ratio(0.75),
            measured[0][place].sent_bytes
        )?;
    }
    Ok(())
}

/// A kind of handshake.
struct Kind {
    what: &'static str,
    version: &'static SupportedProtocolVersion,
    resumed: HandshakeKind,
    resumption: Tls12Resumption,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn kinds() -> Result<Vec<Kind>> {
    let directory = tempfile::tempdir()?;
    let operator = Memory::open(directory.path(), MemoryOptions::default())?.operator();
    let tickets = Arc::new(Tickets::new());
    tickets.refresh(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(), &operator);
    let sessions = Arc::new(Sessions::new(SESSIONS_MAX, Arc::new(DefaultTimeProvider)));
    let identity = Identity::new();
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    let (by_id, by_ticket) = (Tls12Resumption::SessionIdOnly, Tls12Resumption::SessionIdOrTickets);
    let kind = |(what, version, resumed, resumption)| Kind {
        what,
        version,
        resumed,
        resumption,
        client: identity.client(resumption),
        server: identity.server(version, tickets.clone(), sessions.clone()),
    };
    let kinds = [
        ("TLS 1.2 full, session kept by id", &TLS12, full, by_id),
        ("TLS 1.2 full, and a ticket as well", &TLS12, full, by_ticket),
        ("TLS 1.2 resumed by id", &TLS12, resumed, by_id),
        ("TLS 1.2 resumed by ticket, and a new one", &TLS12, resumed, by_ticket),
        ("TLS 1.3 full, and a ticket", &TLS13, full, by_ticket),
        ("TLS 1.3 resumed, and a new ticket", &TLS13, resumed, by_ticket),
    ];
    Ok(kinds.map(kind).into())
}

/// What one handshake cost in one turn.
struct Cost {
    us: f64,
    sent_bytes: usize,
}

/// One round: a turn of each kind.
fn measure(kinds: &[Kind]) -> Result<Vec<Cost>> {
    kinds.iter().map(turn).collect()
}

fn turn(kind: &Kind) -> Result<Cost> {
    if kind.resumed == HandshakeKind::Resumed {
        // Something to resume.
        shake(&kind.client, &kind.server)?;
    }
    let mut cost = Cost { us: 0.0, sent_bytes: 0 };
    for _ in 0..TURN {
        let mut client = Arc::clone(&kind.client);
        if kind.resumed == HandshakeKind::Full {
            // Forgets the last one.
            let resumption = Resumption::in_memory_sessions(1).tls12_resumption(kind.resumption);
            Arc::make_mut(&mut client).resumption = resumption;
        }
        let handshake = shake(&client, &kind.server)?;
        ensure!(handshake.kind == kind.resumed, "{}: {:?}", kind.what, handshake.kind);
        cost.us += handshake.server_cpu.as_secs_f64() * 1e6 / f64::from(TURN);
        cost.sent_bytes = handshake.sent_bytes;
    }
    Ok(cost)
}

fn quantile(values: impl Iterator<Item = f64>, at: f64) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * at).round() as usize]
}

/// Says what a session takes in a full cache, ours and rustls' own.
fn memory(out: &mut impl Write) -> Result<()> {
    let session_bytes = session_bytes()?;
    let otter = || Sessions::new(SESSIONS_MAX, Arc::new(DefaultTimeProvider));
    let otter_bytes = grown(|| Arc::new(otter()), session_bytes)?;
    let rustls_bytes = grown(|| ServerSessionMemoryCache::new(SESSIONS_MAX), session_bytes)?;
    writeln!(
        out,
        "a session of {session_bytes} bytes in a cache of {SESSIONS_MAX} takes {otter_bytes:.0} \
         bytes in otter's, {rustls_bytes:.0} in that of rustls"
    )?;
    Ok(())
}

/// Bytes of the process per session of a cache that is full.
fn grown<C: StoresServerSessions>(
    make: impl FnOnce() -> Arc<C>,
    session_bytes: usize,
) -> Result<f64> {
    let before = resident_bytes()?;
    let cache = make();
    for number in 0..SESSIONS_MAX as u64 {
        let id = ring::digest::digest(&ring::digest::SHA256, &number.to_le_bytes());
        ensure!(cache.put(id.as_ref().to_vec(), vec![7; session_bytes]), "not kept");
    }
    let grown = resident_bytes()?.saturating_sub(before) as f64;
    // Its memory must not be there again for the next one.
    std::mem::forget(cache);
    Ok(grown / SESSIONS_MAX as f64)
}

/// How long a session of TLS 1.2 is, as rustls writes it.
fn session_bytes() -> Result<usize> {
    let seen = Arc::new(Seen::default());
    let identity = Identity::new();
    let server = identity.server(&TLS12, Arc::new(Tickets::new()), seen.clone());
    shake(&identity.client(Tls12Resumption::SessionIdOnly), &server)?;
    let length = seen.0.load(Ordering::Relaxed);
    ensure!(length > 0, "no session was kept");
    Ok(length)
}

/// Keeps nothing but the length of what it was given last.
#[derive(Debug, Default)]
struct Seen(AtomicUsize);

impl StoresServerSessions for Seen {
    fn put(&self, _id: Vec<u8>, session: Vec<u8>) -> bool {
        self.0.store(session.len(), Ordering::Relaxed);
        true
    }

    fn get(&self, _id: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, _id: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn can_cache(&self) -> bool {
        true
    }
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}
