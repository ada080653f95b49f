//! A client whose TLS is rustls', over a socket that is as narrow as a device's.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use socket2::{Domain, SockRef, Socket, Type};

use super::ECDSA;
use crate::device::Answer;

/// A certificate of its own and its key.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What connects.
#[derive(Clone)]
pub(super) struct Client {
    roots: RootCertStore,
    holder: Option<Arc<(CertificateDer<'static>, PrivateKeyDer<'static>)>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// The socket's receive buffer, in bytes; none: what the system gives.
    window: Option<usize>,
    /// The longest record that it takes, in bytes with its header.
    record_max: usize,
    /// Bytes that it reads or writes at once.
    bite: usize,
}

/// A connection.
pub(super) struct Line(StreamOwned<ClientConnection, Narrow>);

/// A socket that looks at the records that arrive.
struct Narrow {
    tcp: TcpStream,
    gauge: Gauge,
    bite: usize,
}

/// Follows records of TLS by their headers.
#[derive(Debug)]
pub(super) struct Gauge {
    most: usize,
    header: Vec<u8>,
    /// Of the record that has begun.
    left: usize,
    /// The longest so far, with its header.
    pub(super) longest: usize,
}

impl Identity {
    /// For these names.
    pub(super) fn new(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(super) fn write(&self, certificate: &Path, key: &Path) {
        fs::write(certificate, &self.certificate).expect("written");
        fs::write(key, &self.key).expect("written");
    }
}

impl Client {
    /// One that trusts only this certificate.
    pub(super) fn trusting(certificate: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        roots.add(certificate).expect("a root");
        let (holder, versions) = (None, vec![&TLS13, &TLS12]);
        let (window, record_max, bite) = (None, usize::MAX, usize::MAX);
        Self { roots, holder, versions, window, record_max, bite }
    }

    /// With one version only.
    pub(super) fn of(self, version: &'static SupportedProtocolVersion) -> Self {
        Self { versions: vec![version], ..self }
    }

    /// With a certificate of its own.
    pub(super) fn holding(self, identity: &Identity) -> Self {
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        Self { holder: Some(Arc::new((certificate.expect("a certificate"), key))), ..self }
    }

    /// With a receive buffer that is as small as the kernel makes it.
    pub(super) fn narrow(self) -> Self {
        Self { window: Some(1), ..self }
    }

    /// With memory for records of so many bytes of plaintext and what stands around them (29 bytes,
    /// docs/tls.md) and no more, and reading as many bytes at once.
    pub(super) fn with_buffer(self, bytes: usize) -> Self {
        Self { record_max: bytes + 29, bite: bytes, ..self }
    }

    /// Reading and writing so many bytes at once.
    pub(super) fn biting(self, bite: usize) -> Self {
        Self { bite, ..self }
    }

    /// Connects, and makes the handshake.
    pub(super) fn connect(&self, server: SocketAddr) -> Line {
        self.try_connect(server).expect("a handshake")
    }

    /// The same; fails as the handshake does.
    pub(super) fn try_connect(&self, server: SocketAddr) -> io::Result<Line> {
        let tcp = dial(server, self.window);
        let gauge = Gauge::new(self.record_max);
        let narrow = Narrow { tcp, gauge, bite: self.bite };
        let mut stream = StreamOwned::new(self.connection(), narrow);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Line(stream))
    }

    /// The first bytes that it would send.
    pub(super) fn hello(&self) -> Vec<u8> {
        let mut connection = self.connection();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).expect("memory");
        bytes
    }

    /// Begins a handshake, and returns what it would send next.
    pub(super) fn second_flight(&self, mut tcp: &TcpStream) -> Vec<u8> {
        let mut connection = self.connection();
        connection.write_tls(&mut tcp).expect("sent");
        while !connection.wants_write() {
            connection.read_tls(&mut tcp).expect("the server's part");
            connection.process_new_packets().expect("good records");
        }
        let mut bytes = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut bytes).expect("memory");
        }
        bytes
    }

    /// Sends a request and reads the answer up to the end, which must be said.
    pub(super) fn ask(&self, server: SocketAddr, request: &str) -> Answer {
        let mut line = self.connect(server);
        line.send(request);
        line.answer().expect("an answer and its end")
    }

    fn connection(&self) -> ClientConnection {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&self.versions).expect("versions");
        let builder = builder.with_root_certificates(self.roots.clone());
        let mut config = match &self.holder {
            Some(holder) => {
                let (certificate, key) = &**holder;
                let chain = vec![certificate.clone()];
                builder.with_client_auth_cert(chain, key.clone_key()).expect("a certificate")
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(ECDSA).expect("a name");
        ClientConnection::new(Arc::new(config), name).expect("a client")
    }
}

impl Line {
    pub(super) fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("sent");
        self.0.flush().expect("sent");
    }

    /// Says that nothing more follows, and closes the sending side.
    pub(super) fn finish(&mut self) {
        self.0.conn.send_close_notify();
        self.0.flush().expect("sent");
        self.tcp().shutdown(Shutdown::Write).expect("a connection");
    }

    /// Changes the keys of what it sends (RFC 8446 4.6.3).
    pub(super) fn change_keys(&mut self) {
        self.0.conn.refresh_traffic_keys().expect("TLS 1.3");
        self.0.flush().expect("sent");
    }

    /// Reads so many bytes.
    pub(super) fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.0.read_exact(&mut read).expect("so many bytes");
        read
    }

    /// Reads up to the end; fails if that is not said by `close_notify`.
    pub(super) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        self.0.read_to_end(&mut read)?;
        Ok(read)
    }

    /// Reads an answer and the end that follows it.
    pub(super) fn answer(&mut self) -> io::Result<Answer> {
        self.rest().map(|read| Answer::parse(read).expect("an answer"))
    }

    /// The longest record that came, in bytes with its header.
    pub(super) fn longest(&self) -> usize {
        self.0.sock.gauge.longest
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.0.sock.tcp
    }

    /// What it would send for this text, without sending it.
    pub(super) fn sealed(&mut self, text: &str) -> Vec<u8> {
        self.0.conn.writer().write_all(text.as_bytes()).expect("memory");
        let mut bytes = Vec::new();
        self.0.conn.write_tls(&mut bytes).expect("memory");
        bytes
    }
}

impl Read for Narrow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.bite);
        let n = self.tcp.read(&mut buffer[..most])?;
        self.gauge.see(&buffer[..n])?;
        Ok(n)
    }
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.write(&bytes[..bytes.len().min(self.bite)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Gauge {
    /// One that fails at records of more bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { most, header: Vec::new(), left: 0, longest: 0 }
    }

    /// These came next. Fails at the header of a record that is too long, as BearSSL does.
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                n
            } else {
                let n = (5 - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..n]);
                if let [_, _, _, high, low] = *self.header {
                    self.left = usize::from(u16::from_be_bytes([high, low]));
                    self.longest = self.longest.max(5 + self.left);
                    self.header.clear();
                }
                n
            };
            bytes = &bytes[n..];
        }
        if self.longest > self.most {
            let text =
                format!("a record of {} bytes does not fit into {}", self.longest, self.most);
            return Err(io::Error::new(ErrorKind::OutOfMemory, text));
        }
        Ok(())
    }
}

/// Connects, with a receive buffer of so many bytes; the kernel has a least. Who has one takes
/// segments as short as a device does, or else none would fit.
pub(super) fn dial(server: SocketAddr, window: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    if let Some(bytes) = window {
        socket.set_recv_buffer_size(bytes).expect("a buffer");
        socket.set_tcp_mss(DEVICE_SEGMENT_BYTES).expect("a length");
    }
    socket.connect(&server.into()).expect("a connection");
    let tcp = TcpStream::from(socket);
    tcp.set_nodelay(true).expect("no delay");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    tcp
}

/// The end of a connection becomes a reset.
pub(super) fn reset(tcp: TcpStream) {
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(tcp);
}

/// Reads to the end, which may be a reset.
pub(super) fn until_closed(mut tcp: &TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    match tcp.read_to_end(&mut read) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end: {error}"),
        Ok(_) | Err(_) => read,
    }
}

const DEVICE_SEGMENT_BYTES: u32 = 536;
/// Only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(30);
