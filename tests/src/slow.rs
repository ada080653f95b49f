//! Clients that are as slow as a server lets them be: they hold connections with as few bytes as
//! they can.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::tls::Trusting;

/// By what a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// HTTP.
    Plain,
    /// HTTP over TLS; any certificate will do.
    Tls,
}

/// What a client takes its time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Sends its first record of TLS byte by byte.
    Hello,
    /// Sends the head of a check-in byte by byte.
    Head,
    /// Sends the body of a check-in byte by byte.
    Body,
    /// Asks for an image and reads some of it: just enough, if it does so every five seconds.
    Read,
}

/// Connections of one kind to one server.
pub struct Slow {
    server: SocketAddr,
    way: Way,
    manner: Manner,
    token: String,
    /// How many it was to hold.
    wanted: usize,
    held: Vec<Stream>,
    /// How many ended, and were made again.
    ended: u64,
    made: u32,
}

/// A connection that reads and writes.
pub enum Stream {
    /// By [`Way::Plain`].
    Plain(TcpStream),
    /// By [`Way::Tls`].
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Way {
    /// Connects, with a small receive buffer.
    ///
    /// # Errors
    /// What the system or TLS said.
    pub fn connect(self, server: SocketAddr) -> io::Result<Stream> {
        let stream = connect(server, Ipv4Addr::LOCALHOST)?;
        self.begin(stream)
    }

    fn begin(self, stream: TcpStream) -> io::Result<Stream> {
        match self {
            Self::Plain => Ok(Stream::Plain(stream)),
            Self::Tls => {
                let name = ServerName::try_from("otter").map_err(io::Error::other)?;
                let tls = ClientConnection::new(trusting(), name).map_err(io::Error::other)?;
                Ok(Stream::Tls(Box::new(StreamOwned::new(tls, stream))))
            }
        }
    }
}

impl Slow {
    /// Most bytes of HTTP or of a hello with which a connection begins.
    pub const BEGINNING_BYTES_MAX: usize = 80;

    /// None yet. `token` is for [`Manner::Read`].
    #[must_use]
    pub fn new(server: SocketAddr, way: Way, manner: Manner, token: &str) -> Self {
        let (token, held) = (token.to_owned(), Vec::new());
        Self { server, way, manner, token, wanted: 0, held, ended: 0, made: 0 }
    }

    /// Makes anew what has ended.
    ///
    /// # Errors
    /// What the system or TLS said.
    pub fn renew(&mut self) -> io::Result<()> {
        // Reading is what ends those that read; they are asked only when they are to.
        if self.manner != Manner::Read {
            self.keep(Stream::listen);
        }
        self.hold(self.wanted)
    }

    /// Makes connections until so many are held.
    ///
    /// # Errors
    /// What the system or TLS said.
    pub fn hold(&mut self, count: usize) -> io::Result<()> {
        self.wanted = count;
        while self.held.len() < count {
            let stream = self.make()?;
            self.held.push(stream);
        }
        Ok(())
    }

    /// Some more on each connection. Those that ended are gone.
    pub fn trickle(&mut self) {
        let manner = self.manner;
        self.keep(|stream| stream.trickle(manner));
    }

    fn keep(&mut self, mut lives: impl FnMut(&mut Stream) -> io::Result<()>) {
        let before = self.held.len();
        self.held.retain_mut(|stream| lives(stream).is_ok());
        self.ended += (before - self.held.len()) as u64;
    }

    /// How many are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many ended so far.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// From one of many addresses, because one has only so many ports.
    fn make(&mut self) -> io::Result<Stream> {
        self.made = self.made.wrapping_add(1);
        let from = Ipv4Addr::new(127, 0, 1, (self.made % 250) as u8 + 1);
        let stream = connect(self.server, from)?;
        if self.manner == Manner::Hello {
            let mut stream = Stream::Plain(stream);
            stream.say(&[0x16, 3, 1, 2, 0, 1, 0])?;
            return Ok(stream);
        }
        let mut stream = self.way.begin(stream)?;
        let head = "POST /device/register HTTP/1.1\r\nHost: otter\r\n";
        match self.manner {
            Manner::Hello | Manner::Head => stream.say(head.as_bytes())?,
            Manner::Body => {
                stream.say(format!("{head}Content-Length: 16000\r\n\r\n").as_bytes())?
            }
            Manner::Read => {
                let token = &self.token;
                let request = format!("GET /device/firmware?ott={token} HTTP/1.0\r\n\r\n");
                stream.say(request.as_bytes())?;
                // Its head has come: from here on it is the server that waits.
                stream.read_exact(&mut [0; 16])?;
            }
        }
        Ok(stream)
    }
}

impl Stream {
    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)?;
        self.flush()
    }

    /// Fails if the connection has ended.
    fn trickle(&mut self, manner: Manner) -> io::Result<()> {
        if manner == Manner::Read {
            match self.read(&mut [0; READ_BYTES])? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            }
        } else {
            self.listen()?;
            self.say(b"x")
        }
    }

    /// Fails if the connection has ended, as far as that was heard.
    fn listen(&mut self) -> io::Result<()> {
        self.socket().set_nonblocking(true)?;
        let heard = self.socket().peek(&mut [0; 1]);
        self.socket().set_nonblocking(false)?;
        match heard {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            // Tickets of TLS 1.3 come by themselves.
            Ok(_) if matches!(self, Self::Tls(_)) && self.drain()? => Ok(()),
            // An answer to half a request, or none, and so the end.
            Ok(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Takes what came without waiting; false at the end.
    fn drain(&mut self) -> io::Result<bool> {
        let Self::Tls(tls) = self else { return Ok(false) };
        tls.sock.set_nonblocking(true)?;
        let read = tls.conn.read_tls(&mut tls.sock);
        tls.sock.set_nonblocking(false)?;
        let state = tls.conn.process_new_packets().map_err(io::Error::other)?;
        Ok(read? > 0 && state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

fn connect(server: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// Settings that take any certificate: these clients hold connections and keep no secrets.
fn trusting() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("versions of rustls");
        let verifier = Arc::new(Trusting::new(None));
        let config = builder.dangerous().with_custom_certificate_verifier(verifier);
        Arc::new(config.with_no_client_auth())
    });
    Arc::clone(config)
}

/// More than a server demands of who reads that much every five seconds (docs/wire.md 1.0).
const READ_BYTES: usize = 1536;
