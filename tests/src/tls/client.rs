//! A TLS client without a socket.

use std::io::{Read, Write};
use std::mem;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Error, ExtractedSecrets, HandshakeKind, ProtocolVersion,
};

use super::terms::NAME;

/// The client's side of one connection: plaintext and ciphertext, each both ways.
///
/// ```
/// use otter_tests::tls::{Client, Terms};
/// let mut client = Client::new(Terms::default().client());
/// client.say(b"waits until the handshake is done");
/// assert_eq!(client.take_wire()[0], 22, "a ClientHello");
/// ```
#[derive(Debug)]
pub struct Client {
    connection: ClientConnection,
    /// Plaintext that was heard and not taken.
    heard: Vec<u8>,
    end: Option<End>,
}

/// How the other side's ciphertext ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// With close_notify: all has come.
    Meant,
    /// With what is wrong, be it with what the server sent or because the server said so.
    Failed(Error),
}

impl Client {
    /// Nothing was sent yet.
    ///
    /// # Panics
    /// If the settings are of no use.
    #[must_use]
    pub fn new(config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(NAME).expect("a name");
        let mut connection = ClientConnection::new(config, name).expect("settings of use");
        connection.set_buffer_limit(None);
        Self { connection, heard: Vec::new(), end: None }
    }

    /// Sends plaintext, in one record if it fits; it waits for the handshake. After a failure
    /// nobody hears it.
    pub fn say(&mut self, plain: &[u8]) {
        let _ = self.connection.writer().write_all(plain);
    }

    /// Says that nothing more will follow, if the handshake is done.
    pub fn say_end(&mut self) {
        if !self.is_handshaking() {
            self.connection.send_close_notify();
        }
    }

    /// Asks the other side to take new keys, and takes new ones (TLS 1.3).
    ///
    /// # Errors
    /// There is no such thing in TLS 1.2, or before the end of the handshake.
    pub fn update_keys(&mut self) -> Result<(), Error> {
        self.connection.refresh_traffic_keys()
    }

    /// Ciphertext for the other side.
    ///
    /// # Panics
    /// Never: memory takes all.
    pub fn take_wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut wire).expect("memory takes all");
        }
        wire
    }

    /// Ciphertext of the other side's. After an end nothing is heard any more.
    ///
    /// # Panics
    /// Never: memory can be read.
    pub fn hear(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() && self.end.is_none() {
            self.connection.read_tls(&mut wire).expect("memory can be read");
            match self.connection.process_new_packets() {
                Ok(state) => {
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    self.connection.reader().read_exact(&mut plain).expect("so many bytes");
                    self.heard.extend_from_slice(&plain);
                    self.end = state.peer_has_closed().then_some(End::Meant);
                }
                Err(error) => self.end = Some(End::Failed(error)),
            }
        }
    }

    /// Plaintext that came out since this was asked last.
    pub fn take_heard(&mut self) -> Vec<u8> {
        mem::take(&mut self.heard)
    }

    /// Plaintext that waits to be taken.
    #[must_use]
    pub fn heard(&self) -> &[u8] {
        &self.heard
    }

    /// How many bytes of plaintext wait to be taken.
    #[must_use]
    pub fn heard_bytes(&self) -> usize {
        self.heard.len()
    }

    /// At most so much of the plaintext.
    pub fn take_heard_at_most(&mut self, bytes_max: usize) -> Vec<u8> {
        self.heard.drain(..self.heard.len().min(bytes_max)).collect()
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Is the handshake not done yet?
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Was a session of before taken up again?
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Which version was agreed upon.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.connection.protocol_version()
    }

    /// The keys of both directions.
    ///
    /// # Errors
    /// The settings do not let them out, or the handshake is not done.
    pub fn into_secrets(self) -> Result<ExtractedSecrets, Error> {
        self.connection.dangerous_extract_secrets()
    }

    /// All that rustls knows of it.
    #[must_use]
    pub fn connection(&self) -> &ClientConnection {
        &self.connection
    }
}
