//! The client's side of one connection, over a socket that does not block.

use std::io::{self, Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use mio::net::TcpStream;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, HandshakeKind};

use super::NAME;

/// A connection of rustls with the buffers it needs, or one without TLS.
pub(super) struct Session {
    tls: Option<UnbufferedClientConnection>,
    buffers: Buffers,
    /// What is encrypted as soon as that is possible.
    unsaid: Vec<u8>,
}

/// Those of an earlier session may serve the next one.
#[derive(Default)]
pub(super) struct Buffers {
    received: Vec<u8>,
    /// What of `received` is not looked at yet.
    start: usize,
    end: usize,
    unsent: Vec<u8>,
}

/// What a turn brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The socket has no more.
    Waits,
    /// What was waited for is there.
    Heard,
    /// The peer has ended the connection.
    Ended,
}

impl Session {
    /// Without a `config` there is no TLS.
    pub(super) fn new(config: Option<&Arc<ClientConfig>>, mut buffers: Buffers) -> Result<Self> {
        let name = NAME.try_into()?;
        let client = |config| UnbufferedClientConnection::new(Arc::clone(config), name);
        let tls = config.map(client).transpose()?;
        buffers.received.resize(RECEIVED_BYTES, 0);
        (buffers.start, buffers.end) = (0, 0);
        buffers.unsent.clear();
        Ok(Self { tls, buffers, unsaid: Vec::new() })
    }

    /// Says something, as soon as the handshake allows.
    pub(super) fn say(&mut self, request: &[u8]) {
        self.unsaid.extend_from_slice(request);
    }

    pub(super) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.tls.as_ref().and_then(|tls| tls.handshake_kind())
    }

    pub(super) fn into_buffers(self) -> Buffers {
        self.buffers
    }

    /// Encrypts and sends what is to be said. It does not look at what the peer says.
    pub(super) fn send(&mut self, stream: &mut TcpStream) -> Result<()> {
        self.process(&mut |_| bail!("nothing was asked"))?;
        self.buffers.flush(stream)
    }

    /// Encrypts, sends, receives and decrypts until `hear`, which gets what the peer says, is
    /// content, or the socket would block.
    pub(super) fn advance(
        &mut self,
        stream: &mut TcpStream,
        mut hear: impl FnMut(&[u8]) -> Result<bool>,
    ) -> Result<Turn> {
        loop {
            let is_heard = self.process(&mut hear)?;
            self.buffers.flush(stream)?;
            if is_heard {
                return Ok(Turn::Heard);
            }
            match stream.read(self.buffers.free()) {
                Ok(0) => return Ok(Turn::Ended),
                Ok(n) => self.buffers.end += n,
                Err(error) if is_early(&error) => return Ok(Turn::Waits),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Works off what was received; is `hear` content?
    fn process(&mut self, hear: &mut impl FnMut(&[u8]) -> Result<bool>) -> Result<bool> {
        let mut is_heard = false;
        let Buffers { received, start, end, unsent } = &mut self.buffers;
        let Some(tls) = &mut self.tls else {
            unsent.append(&mut self.unsaid);
            let heard = &received[std::mem::replace(start, *end)..*end];
            return if heard.is_empty() { Ok(false) } else { hear(heard) };
        };
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                tls.process_tls_records(&mut received[*start..*end]);
            let goes_on = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        is_heard |= hear(record.payload)?;
                    }
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(unsent, HANDSHAKE_BYTES, |free| {
                        data.encode(free).map_err(|error| anyhow!("{error}"))
                    })?;
                    true
                }
                ConnectionState::TransmitTlsData(mut data) => {
                    if let Some(mut traffic) = data.may_encrypt_app_data() {
                        encrypt(&mut traffic, &mut self.unsaid, unsent)?;
                    }
                    data.done();
                    true
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    encrypt(&mut traffic, &mut self.unsaid, unsent)?;
                    false
                }
                ConnectionState::PeerClosed => true,
                ConnectionState::BlockedHandshake | ConnectionState::Closed => false,
                ConnectionState::ReadEarlyData(_) => bail!("early data at a client"),
                state => bail!("a state without meaning: {state:?}"),
            };
            *start += discard;
            if !goes_on {
                return Ok(is_heard);
            }
        }
    }
}

impl Buffers {
    /// Where the socket may write.
    fn free(&mut self) -> &mut [u8] {
        self.received.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.received[self.end..]
    }

    fn flush(&mut self, stream: &mut TcpStream) -> Result<()> {
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(n) => self.unsent.drain(..n),
                Err(error) if is_early(&error) => break,
                Err(error) => return Err(error).context("cannot send"),
            };
        }
        Ok(())
    }
}

fn encrypt<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    unsaid: &mut Vec<u8>,
    unsent: &mut Vec<u8>,
) -> Result<()> {
    if unsaid.is_empty() {
        return Ok(());
    }
    append(unsent, unsaid.len() + RECORD_EXTRA_BYTES, |free| {
        traffic.encrypt(unsaid, free).map_err(|error| anyhow!("{error}"))
    })?;
    unsaid.clear();
    Ok(())
}

/// Appends what `write` writes into so many bytes at most.
fn append(
    to: &mut Vec<u8>,
    most: usize,
    write: impl FnOnce(&mut [u8]) -> Result<usize>,
) -> Result<()> {
    let len = to.len();
    to.resize(len + most, 0);
    let n = write(&mut to[len..])?;
    to.truncate(len + n);
    Ok(())
}

/// There is nothing yet, or the connection is still being made.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// Sixteen records and a bit.
const RECEIVED_BYTES: usize = 272 * 1024;
/// More than any message that a client without a certificate has to say.
const HANDSHAKE_BYTES: usize = 4096;
/// Header, nonce and tag, for one record.
const RECORD_EXTRA_BYTES: usize = 64;
