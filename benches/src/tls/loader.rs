//! Many clients at once in one thread, all of which do the same.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use ring::digest;
use rustix::io::Errno;
use rustls::{ClientConfig, HandshakeKind};
use socket2::{Domain, Socket, Type};

use super::session::{Buffers, Session, Turn};
use super::{Certificate, Resume, Terms};
use crate::loader::Until;

/// What each client asks, and what it must be answered.
#[derive(Clone, Debug)]
pub struct Job {
    /// One request.
    pub request: Vec<u8>,
    /// The status of each answer.
    pub status: u16,
    /// SHA-256 of the body; looked at in the first answer of each run, as it costs the loader more
    /// than decrypting. `None` where a body may differ from the last one.
    pub sha256: Option<[u8; 32]>,
    /// What to do with the connection after the answer.
    pub then: Then,
}

/// What a client does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It asks again on the same connection.
    AskAgain,
    /// It waits for the end of the connection, and makes another one.
    Reconnect,
    /// It keeps the socket, without any state of TLS, and makes another connection.
    Keep,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Whole answers.
    pub answers: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// Clients of one server.
pub struct SecureLoader {
    poll: Poll,
    address: SocketAddr,
    job: Job,
    /// `None` without TLS.
    resumption: Option<Resume>,
    clients: Vec<Client>,
    kept: Vec<TcpStream>,
    /// The bytes of an answer's body: those of the first one, then of each.
    body_bytes: Option<u64>,
    /// Whether they take 2920 bytes at a time.
    is_narrow: bool,
}

struct Client {
    /// `None` without TLS.
    config: Option<Arc<ClientConfig>>,
    /// Whether the server has given it something to come back with.
    is_known: bool,
    /// Whether its handshake is not looked at yet.
    is_new: bool,
    connection: Option<(TcpStream, Session)>,
    buffers: Buffers,
    answer: Answer,
    is_verified: bool,
}

/// What has come of an answer.
#[derive(Default)]
struct Answer {
    head: Vec<u8>,
    /// Bytes of the body, once the head is complete.
    body: Option<u64>,
    missing: u64,
    hash: Option<digest::Context>,
}

impl SecureLoader {
    /// So many clients of TLS, which are not connected yet. Each has a memory of its own for what
    /// it may come back with.
    ///
    /// # Errors
    /// If the terms or the certificate are bad, or the process has no descriptor left.
    pub fn new(
        address: SocketAddr,
        terms: &Terms,
        certificate: &Certificate,
        job: Job,
        clients: usize,
    ) -> Result<Self> {
        let client = |_| Ok(Client::new(Some(terms.client(certificate)?)));
        let clients = (0..clients).map(client).collect::<Result<_>>()?;
        Self::of(address, Some(terms.resumption), job, clients)
    }

    /// The same without TLS.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn plain(address: SocketAddr, job: Job, clients: usize) -> Result<Self> {
        Self::of(address, None, job, (0..clients).map(|_| Client::new(None)).collect())
    }

    fn of(
        address: SocketAddr,
        resumption: Option<Resume>,
        job: Job,
        clients: Vec<Client>,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let (kept, body_bytes, is_narrow) = (Vec::new(), None, false);
        Ok(Self { poll, address, job, resumption, clients, kept, body_bytes, is_narrow })
    }

    /// Makes them as small as devices are: a receive buffer of 2920 bytes, segments of 1460. For
    /// connections that are made from now on.
    pub fn narrow(&mut self) {
        self.is_narrow = true;
    }

    /// Lets clients that resume begin anew, each with a full handshake, so that the server has not
    /// forgotten them for the sake of others. Others do nothing.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn introduce(&mut self) -> Result<()> {
        let Some(resumption) = self.resumption.filter(|how| *how != Resume::Never) else {
            return Ok(());
        };
        for client in &mut self.clients {
            let mut config = client.config.as_deref().context("resumption is TLS")?.clone();
            config.resumption = resumption.memory();
            (client.config, client.is_known) = (Some(Arc::new(config)), false);
        }
        self.run(Until::Sent(self.clients.len() as u64)).map(drop)
    }

    /// Lets all clients ask until `until`, then waits for the answers that are missing.
    ///
    /// # Errors
    /// If a connection or a handshake fails, an answer is not what it must be, nothing happens for
    /// a minute, or a handshake is full that must be resumed, or the other way round: those of
    /// clients that resume must all be resumed but their first one.
    pub fn run(&mut self, until: Until) -> Result<Done> {
        let start = Instant::now();
        let mut done = Done::default();
        let mut sent = 0;
        for number in 0..self.clients.len() {
            self.clients[number].is_verified = number > 0;
            self.begin(number)?;
            sent += 1;
        }
        let mut events = Events::with_capacity(256);
        while done.answers < sent {
            self.poll.poll(&mut events, Some(PATIENCE))?;
            if events.is_empty() {
                bail!("{} answers are missing", sent - done.answers);
            }
            let goes_on = match until {
                Until::Elapsed(time) => start.elapsed() < time,
                Until::Sent(count) => sent < count,
            };
            for event in &events {
                let number = event.token().0;
                let Some(bytes) = self.advance(number)? else { continue };
                done.answers += 1;
                done.bytes += bytes;
                if goes_on {
                    self.begin(number)?;
                    sent += 1;
                }
            }
        }
        Ok(done)
    }

    /// The sockets that were kept, all of which are still open.
    ///
    /// # Errors
    /// If the server has closed one.
    pub fn kept(&self) -> Result<usize> {
        for stream in &self.kept {
            match stream.peek(&mut [0]) {
                Ok(0) => bail!("the server has closed a kept connection"),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.kept.len())
    }

    /// Sends a request, over a new connection if there is none.
    fn begin(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        client.answer.clear(self.job.sha256.is_some() && !client.is_verified);
        if client.connection.is_none() {
            let stream = if self.is_narrow { narrow(self.address) } else { wide(self.address) };
            let stream = stream.context("cannot connect")?;
            client.connect(stream, self.poll.registry(), Token(number))?;
        }
        let (stream, session) = client.connection.as_mut().context("just made")?;
        session.say(&self.job.request);
        session.send(stream)
    }

    /// Does what can be done; returns the bytes of an answer that is complete.
    fn advance(&mut self, number: usize) -> Result<Option<u64>> {
        let client = &mut self.clients[number];
        let Some((stream, session)) = &mut client.connection else { return Ok(None) };
        let (answer, then) = (&mut client.answer, self.job.then);
        let turn = session.advance(stream, |bytes| {
            answer.take(bytes)?;
            Ok(answer.is_complete() && then != Then::Reconnect)
        })?;
        match (turn, then) {
            (Turn::Waits, _) => return Ok(None),
            (Turn::Heard, Then::AskAgain | Then::Keep) | (Turn::Ended, Then::Reconnect) => {}
            (Turn::Heard, Then::Reconnect) | (Turn::Ended, Then::AskAgain | Then::Keep) => {
                bail!("closed: {}", answer.text())
            }
        }
        let bytes = answer.judge(&self.job)?;
        client.is_verified = true;
        if *self.body_bytes.get_or_insert(bytes) != bytes {
            bail!("a body of another length: {}", answer.text());
        }
        if let (true, Some(resumption)) = (client.is_new, self.resumption) {
            let is_resumed = client.is_known && resumption != Resume::Never;
            let must = if is_resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
            if session.handshake_kind() != Some(must) {
                bail!("a handshake was {:?}, not {must:?}", session.handshake_kind());
            }
            (client.is_new, client.is_known) = (false, true);
        }
        if then != Then::AskAgain {
            let mut stream = client.disconnect().context("connected")?;
            if then == Then::Keep {
                self.poll.registry().deregister(&mut stream)?;
                self.kept.push(stream);
            }
        }
        Ok(Some(bytes))
    }
}

fn wide(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address)
}

/// The window is agreed on when the connection is made.
fn narrow(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_recv_buffer_size(NARROW_BYTES)?;
    socket.set_tcp_mss(NARROW_BYTES as u32 / 2)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

impl Client {
    fn new(config: Option<Arc<ClientConfig>>) -> Self {
        Self {
            config,
            is_known: false,
            is_new: false,
            connection: None,
            buffers: Buffers::default(),
            answer: Answer::default(),
            is_verified: false,
        }
    }

    fn connect(&mut self, mut stream: TcpStream, registry: &Registry, token: Token) -> Result<()> {
        let session = Session::new(self.config.as_ref(), std::mem::take(&mut self.buffers))?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.connection = Some((stream, session));
        self.is_new = true;
        Ok(())
    }

    fn disconnect(&mut self) -> Option<TcpStream> {
        let (stream, session) = self.connection.take()?;
        self.buffers = session.into_buffers();
        Some(stream)
    }
}

impl Answer {
    fn clear(&mut self, is_hashed: bool) {
        self.head.clear();
        self.body = None;
        self.missing = 0;
        self.hash = is_hashed.then(|| digest::Context::new(&digest::SHA256));
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.body.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let end = self.head.windows(4).position(|window| window == b"\r\n\r\n");
            let Some(end) = end.map(|end| end + 4) else { return Ok(()) };
            self.head.truncate(end);
            bytes = &bytes[end - before..];
            self.missing = self.content_length()?;
            self.body = Some(self.missing);
        }
        let n = bytes.len() as u64;
        self.missing = self.missing.checked_sub(n).context("more than the answer")?;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.body.is_some() && self.missing == 0
    }

    fn content_length(&self) -> Result<u64> {
        let head = std::str::from_utf8(&self.head)?;
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let (_, length) = lengths.next().context("an answer without its length")?;
        Ok(length.trim().parse()?)
    }

    /// The bytes of the body of an answer that is what it must be.
    fn judge(&mut self, job: &Job) -> Result<u64> {
        let status = format!("HTTP/1.1 {} ", job.status);
        let bytes = self.body.filter(|_| self.is_complete());
        let Some(bytes) = bytes.filter(|_| self.head.starts_with(status.as_bytes())) else {
            bail!("cut or refused: {}", self.text());
        };
        if let (Some(expected), Some(hash)) = (job.sha256, self.hash.take())
            && hash.finish().as_ref() != expected
        {
            bail!("another body: {}", self.text());
        }
        Ok(bytes)
    }

    fn text(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        format!("{head:?}, {} bytes are missing", self.missing)
    }
}

/// What a device takes at a time.
const NARROW_BYTES: usize = 2920;
/// A server that is watched takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
