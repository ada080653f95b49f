//! TLS beneath the peers of a test binary whose name is `tls`.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};

use otter_protocol::Security;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

/// Do servers and peers speak TLS? All tests are the same then, but for these:
///
/// - Who is turned away, because there is no room, is told 503 over plain HTTP only: to say it by
///   TLS would cost a handshake, for which there is no room either.
/// - The bytes of an image that is gone are noticed by the core, which has to read them, and not by
///   the driver: the connection counts as `Torn`, not as broken, and ends without `close_notify`.
/// - How many bytes leave and arrive: what is compared is what the peer counted on the wire.
pub(crate) const OVER_TLS: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"tls");

/// What protects the connections of a server.
pub(crate) fn security() -> Security {
    if OVER_TLS { Security::Tls(Arc::clone(&settings().server)) } else { Security::Plain }
}

/// The client's side of TLS.
pub(crate) struct Secret(Box<ClientConnection>);

impl Secret {
    /// Every other one of a test speaks TLS 1.2.
    pub(crate) fn new() -> Self {
        thread_local! { static IS_OLD: Cell<bool> = const { Cell::new(true) } }
        IS_OLD.set(!IS_OLD.get());
        let config = Arc::clone(&settings().clients[usize::from(IS_OLD.get())]);
        let name = ServerName::try_from(NAME).expect("a name");
        let mut client = ClientConnection::new(config, name).expect("a client");
        client.set_buffer_limit(None);
        Self(Box::new(client))
    }

    /// Makes the handshake.
    pub(crate) fn shake_hands(&mut self, mut wire: Wire<'_>) -> io::Result<()> {
        while self.0.is_handshaking() {
            self.0.complete_io(&mut wire)?;
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, bytes: &[u8], wire: Wire<'_>) -> io::Result<()> {
        self.0.writer().write_all(bytes)?;
        self.flush(wire)
    }

    /// Says that nothing more follows.
    pub(crate) fn finish(&mut self, wire: Wire<'_>) -> io::Result<()> {
        self.0.send_close_notify();
        self.flush(wire)
    }

    /// As of a stream; the end is `close_notify`, anything else an error.
    pub(crate) fn read(&mut self, buffer: &mut [u8], mut wire: Wire<'_>) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.0.read_tls(&mut wire)?;
            self.0.process_new_packets().map_err(io::Error::other)?;
        }
    }

    fn flush(&mut self, mut wire: Wire<'_>) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(&mut wire)?;
        }
        Ok(())
    }
}

/// A socket, and how many bytes were sent there.
pub(crate) struct Wire<'a> {
    pub(crate) stream: &'a TcpStream,
    pub(crate) sent: &'a mut u64,
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.stream.write(bytes)?;
        *self.sent += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Settings {
    server: Arc<ServerConfig>,
    /// Of TLS 1.3 and of TLS 1.2.
    clients: [Arc<ClientConfig>; 2],
}

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let certificate = CertificateDer::from(made.cert);
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&ring))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a configuration");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let clients = [&TLS13, &TLS12].map(|version| {
            let client = ClientConfig::builder_with_provider(Arc::clone(&ring))
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            Arc::new(client)
        });
        Settings { server: Arc::new(server), clients }
    })
}

const NAME: &str = "otter.example";
