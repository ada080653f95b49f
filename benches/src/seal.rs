//! What it costs to encrypt an image, with nothing around it: the core's TLS beside bare
//! AES-128-GCM of ring.
//!
//! In memory, without sockets: CPU time of this thread. The core seals 1 MiB over TLS 1.3 with
//! AES-128-GCM, in records of 16 KiB: once from memory, once from a file as `otter serve` does.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use otter_protocol::{
    Answer, Config, Connection, DeviceId, Kind, Legible, Now, Offer, Query, Redemption, Release,
    ReleaseId,
};
use otter_store::{Image, Memory, MemoryOptions};
use otter_tests::handshake::Identity;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, ClientConnection, ServerConfig};
use tempfile::TempDir;

/// What seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealer {
    /// ring alone, in place.
    Bare,
    /// The core, from an image in memory.
    Memory,
    /// The core, from a file.
    File,
}

/// What is sealed, and with what.
pub struct Seals {
    content: Vec<u8>,
    file: Image,
    tls: Configs,
    key: LessSafeKey,
    plain: Vec<u8>,
    _store: (Memory, TempDir),
}

impl Seals {
    /// # Errors
    /// If there is no room for the file.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let store = Memory::open(directory.path(), MemoryOptions::default())?;
        let content = vec![0xe9; WHOLE_BYTES];
        let staged = store.operator().stage(&mut &content[..], WHOLE_BYTES as u64)?;
        let file = staged.image().context("the image is gone")?;
        let (tls, key, plain) = (server_config()?, raw_key()?, vec![0xe9; RECORD_BYTES]);
        Ok(Self { content, file, tls, key, plain, _store: (store, directory) })
    }

    /// Seals 64 MiB; returns CPU seconds per GiB.
    ///
    /// # Errors
    /// If what comes out is not what it must be.
    pub fn seconds_per_gib(&mut self, sealer: Sealer) -> Result<f64> {
        match sealer {
            Sealer::Bare => timed(|| bare(&self.key, &mut self.plain)),
            Sealer::Memory => timed(|| sealed(&self.tls, &Bytes::from(self.content.clone()))),
            Sealer::File => timed(|| sealed(&self.tls, &self.file)),
        }
    }
}

/// CPU seconds per GiB of what encrypts [`TURN`] images.
fn timed(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let before = cpu_time();
    work()?;
    let gib = (TURN * IMAGE_BYTES) as f64 / (1u64 << 30) as f64;
    Ok((cpu_time() - before).as_secs_f64() / gib)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn bare(key: &LessSafeKey, plain: &mut [u8]) -> Result<()> {
    for number in 0..(TURN * IMAGE_BYTES / RECORD_BYTES) as u64 {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = key.seal_in_place_separate_tag(nonce, Aad::empty(), plain);
        ensure!(sealed.is_ok(), "not sealed");
    }
    Ok(())
}

fn raw_key() -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]);
    Ok(LessSafeKey::new(key.map_err(|_| anyhow::anyhow!("no key"))?))
}

/// One connection, from the handshake on, that gives the image [`TURN`] times.
fn sealed<I: AsRef<[u8]> + Legible + Clone>(tls: &Configs, image: &I) -> Result<()> {
    let now = Now { instant: Instant::now(), unix: 1_795_478_791 };
    let mut server = Connection::<I>::tls(Arc::new(Config::default()), Arc::clone(&tls.0), now);
    let name = ServerName::try_from("localhost")?;
    let mut client = ClientConnection::new(Arc::clone(&tls.1), name)?;
    while client.is_handshaking() {
        speak(&mut client, &mut server, now)?;
        while let Some(next) = server.transmit() {
            let mut bytes = next.as_slice();
            let n = bytes.len();
            while !bytes.is_empty() {
                client.read_tls(&mut bytes)?;
                client.process_new_packets()?;
            }
            server.handle_sent(now, n);
        }
    }
    for _ in 0..TURN {
        let token = "5".repeat(64);
        // Without the tail, so that the connection stays.
        let request = format!(
            "GET /device/firmware?ott={token} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-{}\r\n\r\n",
            IMAGE_BYTES - 1
        );
        client.writer().write_all(request.as_bytes())?;
        speak(&mut client, &mut server, now)?;
        let mut sent = 0;
        loop {
            if let Some((id, query)) = server.poll_query() {
                server.handle_answer(now, id, answer(&query, image));
            } else if let Some(next) = server.transmit() {
                let n = next.as_slice().len();
                sent += n;
                server.handle_sent(now, n);
            } else {
                break;
            }
        }
        ensure!(sent > IMAGE_BYTES, "{sent} bytes of ciphertext: {server:?}");
    }
    Ok(())
}

fn speak<I: AsRef<[u8]> + Clone>(
    client: &mut ClientConnection,
    server: &mut Connection<I>,
    now: Now,
) -> Result<()> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire)?;
    }
    server.handle_input(now, &wire);
    Ok(())
}

/// A token that is good for the image, always.
fn answer<I: AsRef<[u8]> + Clone>(query: &Query, image: &I) -> Answer<I> {
    if matches!(query, Query::Claim { .. }) {
        return Answer::Claimed(true);
    }
    let offer = Offer {
        release: ReleaseId([7; 16]),
        version: "2.0.0".into(),
        platform: "arduino".into(),
        env_hash: None,
        sha256: [1; 32],
        md5: [2; 16],
        size: WHOLE_BYTES as u64,
        kind: Kind::Image,
    };
    let release = Release { offer: Arc::new(offer), image: image.clone() };
    let device = DeviceId([7; 16]);
    Answer::Redemption(Redemption::Ready { device, release, started: true, forced: false })
}

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

fn server_config() -> Result<Configs> {
    let identity = Identity::new();
    let sessions = rustls::server::ServerSessionMemoryCache::new(16);
    let tickets = rustls::crypto::ring::Ticketer::new()?;
    let server = identity.server(&TLS13, tickets, sessions);
    Ok((server, identity.client_with(CipherSuite::TLS13_AES_128_GCM_SHA256)))
}

const IMAGE_BYTES: usize = 1 << 20;
/// With the tail, which stays here.
const WHOLE_BYTES: usize = IMAGE_BYTES + Offer::TAIL_BYTES as usize;
/// Images of a turn.
const TURN: usize = 64;
const RECORD_BYTES: usize = 16 * 1024;
