//! TLS beneath HTTP: ciphertext to plaintext and back, by rustls' unbuffered interface. Knows
//! nothing of HTTP; `connection.rs` joins the two.
//!
//! What is kept per connection: rustls' own state; of what was received, the part of a record that
//! is not whole yet; of what is to be sent, one batch of sealed records until the socket has taken
//! it. An idle connection has no buffer.

pub(crate) mod hello;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, HandshakeKind, ServerConfig};
use webpki::EndEntityCert;

use crate::buffers::Buffers;
use crate::mandate::Mandate;
use crate::report::{Handshake, TlsFailure};
use crate::tls::hello::Hello;

/// The TLS of one connection.
pub(crate) struct Tls {
    stage: Stage,
    /// Ciphertext that was received and is not a whole record yet.
    input: Vec<u8>,
    /// Ciphertext to be sent: `output[sent..filled]`.
    output: Vec<u8>,
    sent: usize,
    filled: usize,
    /// Bytes of plaintext in `output`, and how many of them have left.
    sealed: usize,
    left: usize,
    /// What became of the handshake, until it is told.
    handshake: Option<Handshake>,
    /// The peer has said that nothing more will follow: nothing that does is looked at.
    is_up_over: bool,
}

enum Stage {
    /// No ClientHello yet: nothing has cost anything.
    Hello(Arc<ServerConfig>),
    /// A device that probes has its answer; it goes away with it.
    Probed,
    /// `true` from the end of the handshake on.
    Begun(Box<UnbufferedServerConnection>, bool),
    /// We have nothing more to say.
    Over,
}

/// What came out of ciphertext.
pub(crate) enum Received<'a> {
    /// The handshake is done. `Some`: the peer's certificate narrows it to this.
    Opened(Option<Mandate>),
    /// What the peer sent.
    Plain(&'a [u8]),
    /// The peer sends nothing more; it may still read.
    Eof,
    /// It goes no further. [`Tls::pending`] may have an alert that says why.
    Failed,
    /// The peer has what it came for.
    Probed,
    /// This is HTTP without TLS.
    Http,
}

impl Tls {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            stage: Stage::Hello(config),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            filled: 0,
            sealed: 0,
            left: 0,
            handshake: None,
            is_up_over: false,
        }
    }

    /// Takes ciphertext and tells what came of it.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        buffers: &Buffers,
        mut tell: impl FnMut(Received<'_>),
    ) {
        match self.stage {
            Stage::Hello(_) => {
                self.input.extend_from_slice(bytes);
                self.greet(buffers, &mut tell);
            }
            Stage::Begun(..) if self.is_up_over => {}
            Stage::Begun(..) if self.needs_more_than(bytes.len()) => {
                self.input.extend_from_slice(bytes);
            }
            Stage::Begun(..) => {
                let mut memory = buffers.take();
                let (kept, len) = (self.input.len(), self.input.len() + bytes.len());
                memory.resize(memory.len().max(len), 0);
                memory[..kept].copy_from_slice(&self.input);
                memory[kept..len].copy_from_slice(bytes);
                let used = self.open(&mut memory[..len], buffers, &mut tell);
                // Most often nothing is left, and nothing is kept.
                self.input = memory[used..len].to_vec();
                buffers.put(memory);
            }
            Stage::Probed => tell(Received::Probed),
            Stage::Over => {}
        }
    }

    /// Seals plaintext behind what is pending. `None`: it cannot be sent any more.
    pub(crate) fn seal(&mut self, plain: &[u8], buffers: &Buffers) -> Option<()> {
        let Stage::Begun(connection, true) = &mut self.stage else { return None };
        let output = &mut Output::new(&mut self.output, &mut self.filled, buffers);
        loop {
            match connection.process_tls_records(&mut self.input).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    output.write(|room| traffic.encrypt(plain, room))?;
                    self.sealed += plain.len();
                    return Some(());
                }
                Ok(ConnectionState::EncodeTlsData(mut chunk)) => {
                    output.write(|room| chunk.encode(room));
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// Says once that nothing more will follow.
    pub(crate) fn finish(&mut self, buffers: &Buffers) {
        if let Stage::Begun(connection, true) = &mut self.stage
            && let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                connection.process_tls_records(&mut self.input).state
        {
            let output = &mut Output::new(&mut self.output, &mut self.filled, buffers);
            output.write(|room| traffic.queue_close_notify(room));
        }
        self.end();
    }

    /// Ends without a word, so that what has left cannot pass for the whole.
    pub(crate) fn silence(&mut self, buffers: &Buffers) {
        self.end();
        self.sent = self.filled;
        self.advance(0, buffers);
    }

    /// Ciphertext to be sent.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.output[self.sent..self.filled]
    }

    /// The socket took `n` of the pending bytes. Returns how many bytes of plaintext that makes:
    /// all of them only once all has left, and until then a share that is not too large.
    pub(crate) fn advance(&mut self, n: usize, buffers: &Buffers) -> usize {
        assert!(n <= self.pending().len(), "more was sent than was shown");
        self.sent += n;
        if self.sent < self.filled {
            // An alert behind a batch makes the share smaller: what has left stays so.
            let left = (self.sealed * self.sent / self.filled).max(self.left);
            return left - std::mem::replace(&mut self.left, left);
        }
        let rest = self.sealed - self.left;
        (self.sent, self.filled, self.sealed, self.left) = (0, 0, 0, 0);
        buffers.put(std::mem::take(&mut self.output));
        rest
    }

    /// Bytes of plaintext that are sealed and have not left.
    pub(crate) fn owed(&self) -> u64 {
        (self.sealed - self.left) as u64
    }

    /// What was sealed is owed to nobody any more, but leaves.
    pub(crate) fn disown(&mut self) {
        (self.sealed, self.left) = (0, 0);
    }

    /// Is the handshake still to be done, or under way?
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Hello(_) | Stage::Begun(_, false))
    }

    /// May plaintext be sealed?
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Begun(_, true))
    }

    /// What became of the handshake, once.
    pub(crate) fn poll_handshake(&mut self) -> Option<Handshake> {
        self.handshake.take()
    }

    /// The handshake failed for a reason that does not show in what was received.
    pub(crate) fn give_up(&mut self, failure: TlsFailure) {
        let is_begun = !matches!(self.stage, Stage::Hello(_)) || !self.input.is_empty();
        if self.is_handshaking() && (is_begun || failure == TlsFailure::TimedOut) {
            self.handshake = Some(Handshake::Failed(failure));
        }
        self.end();
    }

    /// Looks at the first bytes; begins once they are a whole ClientHello.
    fn greet(&mut self, buffers: &Buffers, tell: &mut impl FnMut(Received<'_>)) {
        let fragment_max = match hello::look(&self.input) {
            Hello::Partial => return,
            Hello::Http => {
                self.handshake = Some(Handshake::Failed(TlsFailure::PlainHttp));
                self.end();
                return tell(Received::Http);
            }
            Hello::Probe(answer) => {
                self.handshake = Some(Handshake::Probed);
                (self.stage, self.input) = (Stage::Probed, Vec::new());
                (self.filled, self.output) = (answer.len(), answer);
                return;
            }
            Hello::Whole(fragment_max) => fragment_max,
            Hello::Strange => None,
        };
        let Stage::Hello(config) = std::mem::replace(&mut self.stage, Stage::Over) else { return };
        match UnbufferedServerConnection::new(fitting(config, fragment_max)) {
            Ok(connection) => {
                self.stage = Stage::Begun(Box::new(connection), false);
                let mut input = std::mem::take(&mut self.input);
                let used = self.open(&mut input, buffers, tell);
                self.input = input.split_off(used);
            }
            Err(error) => {
                self.handshake = Some(Handshake::Failed(failure_of(&error)));
                self.end();
                tell(Received::Failed);
            }
        }
    }

    /// Opens the records in `input`, and answers what the handshake asks. Returns how many bytes
    /// are done with.
    fn open(
        &mut self,
        input: &mut [u8],
        buffers: &Buffers,
        tell: &mut impl FnMut(Received<'_>),
    ) -> usize {
        let Stage::Begun(connection, is_open) = &mut self.stage else { return input.len() };
        let output = &mut Output::new(&mut self.output, &mut self.filled, buffers);
        let (mut used, was_open) = (0, *is_open);
        let failure = loop {
            let UnbufferedStatus { discard, state, .. } =
                connection.process_tls_records(&mut input[used..]);
            used += discard;
            let is_blocked = match state {
                // Of the end of the handshake is told first; the records stay until then.
                Ok(ConnectionState::ReadTraffic(_)) if !*is_open => false,
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        used += record.discard;
                        tell(Received::Plain(record.payload));
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut chunk)) => {
                    output.write(|room| chunk.encode(room));
                    false
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.is_up_over = true;
                    tell(Received::Eof);
                    return input.len();
                }
                Ok(_) => true,
                Err(error) => break Some(error),
            };
            if !connection.is_handshaking() && !std::mem::replace(is_open, true) {
                tell(Received::Opened(mandate_of(connection.peer_certificates())));
            }
            if is_blocked {
                break None;
            }
        };
        if *is_open && !was_open {
            let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
            self.handshake = Some(if is_resumed { Handshake::Resumed } else { Handshake::Full });
        }
        match failure {
            Some(error) => self.fail(failure_of(&error), buffers, tell),
            None if input.len() - used <= KEPT_BYTES_MAX => return used,
            None => self.fail(TlsFailure::Malformed, buffers, tell),
        }
        input.len()
    }

    /// It goes no further; what rustls has to say to the peer about it may leave.
    fn fail(
        &mut self,
        failure: TlsFailure,
        buffers: &Buffers,
        tell: &mut impl FnMut(Received<'_>),
    ) {
        let Stage::Begun(connection, is_open) = &mut self.stage else { return };
        let output = &mut Output::new(&mut self.output, &mut self.filled, buffers);
        // Not one step more: rustls must not look at the input again, and panics without the part
        // that it remembers of it.
        while connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut chunk)) =
                connection.process_tls_records(&mut []).state
        {
            output.write(|room| chunk.encode(room));
        }
        if !*is_open {
            self.handshake = Some(Handshake::Failed(failure));
        }
        self.end();
        tell(Received::Failed);
    }

    /// Must more bytes come than these before there is a whole record?
    fn needs_more_than(&self, bytes: usize) -> bool {
        let [_, _, _, high, low, ..] = *self.input else { return false };
        let whole = 5 + usize::from(u16::from_be_bytes([high, low]));
        self.input.len() + bytes < whole.min(INPUT_BYTES_MAX)
    }

    fn end(&mut self) {
        (self.stage, self.input) = (Stage::Over, Vec::new());
    }
}

/// Where ciphertext goes.
struct Output<'a> {
    memory: &'a mut Vec<u8>,
    filled: &'a mut usize,
    buffers: &'a Buffers,
}

impl<'a> Output<'a> {
    fn new(memory: &'a mut Vec<u8>, filled: &'a mut usize, buffers: &'a Buffers) -> Self {
        Self { memory, filled, buffers }
    }

    /// Lets `encode` write behind what is there, and gives it more room if it says so. `None`: it
    /// will not, with any room.
    fn write<E: Into<Lack>>(
        &mut self,
        mut encode: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Option<()> {
        if self.memory.is_empty() {
            *self.memory = self.buffers.take();
        }
        loop {
            match encode(&mut self.memory[*self.filled..]).map_err(Into::into) {
                Ok(n) => {
                    *self.filled += n;
                    return Some(());
                }
                Err(Lack(Some(bytes))) => self.memory.resize(*self.filled + bytes, 0),
                Err(Lack(None)) => return None,
            }
        }
    }
}

/// How much room it would need, if that is what it lacks.
struct Lack(Option<usize>);

impl From<EncodeError> for Lack {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self(Some(required_size))
            }
            EncodeError::AlreadyEncoded => Self(None),
        }
    }
}

impl From<EncryptError> for Lack {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self(Some(required_size))
            }
            EncryptError::EncryptExhausted => Self(None),
        }
    }
}

/// The settings for a peer that takes at most so many bytes in a record. rustls does not answer
/// max_fragment_length, and counts the five bytes of a record's header.
fn fitting(config: Arc<ServerConfig>, fragment_max: Option<u16>) -> Arc<ServerConfig> {
    let wanted = fragment_max.map(|bytes| usize::from(bytes) + 5);
    match wanted.filter(|wanted| config.max_fragment_size.is_none_or(|ours| ours > *wanted)) {
        Some(wanted) => {
            let mut config = ServerConfig::clone(&config);
            config.max_fragment_size = Some(wanted);
            Arc::new(config)
        }
        None => config,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most errors are a peer that breaks the rules")]
fn failure_of(error: &Error) -> TlsFailure {
    match error {
        Error::PeerIncompatible(_) => TlsFailure::NothingInCommon,
        Error::AlertReceived(_) => TlsFailure::PeerRefused,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => TlsFailure::NotTrusted,
        _ => TlsFailure::Malformed,
    }
}

/// What the certificate that was verified says of whom its bearer may speak for.
fn mandate_of(chain: Option<&[CertificateDer<'_>]>) -> Option<Mandate> {
    let certificate = EndEntityCert::try_from(chain?.first()?).ok()?;
    Mandate::of(certificate.valid_uri_names())
}

/// More than a record has, but for a first message in pieces, whose end TLS judges.
const INPUT_BYTES_MAX: usize = 5 + 16384 + 2048;
/// Of a message that comes in pieces rustls wants to see all records again until it is whole. A
/// client's certificates fit, in records of a sensible size.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn config() -> ServerConfig {
        let made = rcgen::generate_simple_self_signed(["otter.example".to_owned()]).expect("one");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.into()], key)
            .expect("a certificate with its key")
    }

    fn tls() -> Tls {
        Tls::new(Arc::new(config()))
    }

    /// With so much plaintext in so much ciphertext.
    fn with_batch(sealed: usize, filled: usize) -> Tls {
        Tls { output: vec![0; filled + 7], filled, sealed, ..tls() }
    }

    #[test]
    fn settings_are_made_anew_only_for_a_peer_that_needs_it() {
        for (ours, theirs, holds) in [
            (None, None, None),
            (None, Some(512), Some(517)),
            (Some(4101), Some(512), Some(517)),
            (Some(517), Some(4096), Some(517)),
            (Some(600), None, Some(600)),
        ] {
            let mut config = config();
            config.max_fragment_size = ours;
            let config = Arc::new(config);
            let fitting = fitting(Arc::clone(&config), theirs);
            assert_eq!(fitting.max_fragment_size, holds, "{ours:?} here, {theirs:?} there");
            assert_eq!(Arc::ptr_eq(&config, &fitting), holds == ours);
        }
    }

    #[test]
    fn a_batch_that_has_left_gives_its_memory_back() {
        let buffers = Buffers::default();
        let mut tls = Tls { output: buffers.take(), filled: 100, sealed: 60, ..tls() };
        assert_eq!(tls.advance(99, &buffers) + tls.advance(1, &buffers), 60);
        assert!(tls.pending().is_empty() && tls.output.capacity() == 0);
    }

    #[test]
    fn what_is_disowned_leaves_and_counts_for_nothing() {
        let buffers = Buffers::default();
        let mut tls = with_batch(60, 100);
        assert_eq!(tls.advance(50, &buffers), 30);
        tls.disown();
        assert_eq!(tls.pending().len(), 50);
        assert_eq!(tls.advance(20, &buffers) + tls.advance(30, &buffers), 0);
    }

    #[test]
    fn silence_leaves_nothing_to_be_sent() {
        let buffers = Buffers::default();
        let mut tls = with_batch(60, 100);
        tls.advance(10, &buffers);
        tls.silence(&buffers);
        assert!(tls.pending().is_empty() && !tls.is_open() && !tls.is_handshaking());
        assert_eq!(tls.seal(b"x", &buffers), None);
        tls.finish(&buffers);
        assert!(tls.pending().is_empty(), "not a word");
    }

    /// Who has not said a byte has begun nothing; but for the time that it took.
    #[test]
    fn a_handshake_that_was_not_begun_cannot_be_abandoned() {
        let mut silent = tls();
        silent.give_up(TlsFailure::Abandoned);
        assert_eq!(silent.poll_handshake(), None);
        let mut late = tls();
        late.give_up(TlsFailure::TimedOut);
        assert_eq!(late.poll_handshake(), Some(Handshake::Failed(TlsFailure::TimedOut)));
        let mut begun = tls();
        begun.receive(&[HANDSHAKE], &Buffers::default(), |_| panic!("nothing came of it"));
        begun.give_up(TlsFailure::Abandoned);
        assert_eq!(begun.poll_handshake(), Some(Handshake::Failed(TlsFailure::Abandoned)));
        assert_eq!(begun.poll_handshake(), None, "once");
    }

    proptest! {
        /// However it is taken and whatever is sealed behind it meanwhile: the shares of plaintext
        /// never go back, never run ahead of the ciphertext, and make up the whole in the end.
        #[test]
        fn shares_make_up_the_whole(
            sealed in 0..20_000usize,
            overhead in 1..3000usize,
            takes in prop::collection::vec((1..4000usize, 0..40usize), 1..60),
        ) {
            let buffers = Buffers::default();
            let mut tls = with_batch(sealed, sealed + overhead);
            let (mut sent, mut shares) = (0, 0);
            for (take, more) in takes {
                let n = take.min(tls.pending().len());
                if n == 0 {
                    break;
                }
                shares += tls.advance(n, &buffers);
                sent += n;
                prop_assert!(shares <= sealed.min(sent));
                if !tls.pending().is_empty() {
                    tls.filled += more;
                    tls.output.resize(tls.filled, 0);
                }
            }
            let n = tls.pending().len();
            shares += tls.advance(n, &buffers);
            prop_assert_eq!(shares, sealed);
        }
    }

    const HANDSHAKE: u8 = 22;
}
