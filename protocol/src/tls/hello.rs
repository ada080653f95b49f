//! A look at what a client sends first, before any of it costs anything: how large may the records
//! be that it gets, is it a probe, does it speak TLS at all?

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The beginning of a ClientHello.
    Partial,
    /// HTTP without TLS.
    Http,
    /// A question whether records may be small, asked by a device that goes away with the answer,
    /// which this is (docs/wire.md 2.5).
    Probe(Vec<u8>),
    /// A ClientHello to answer. `Some`: the most bytes that its sender takes in one record
    /// (max_fragment_length, RFC 6066 4).
    Whole(Option<u16>),
    /// Something else, or longer than anybody's: TLS says what is wrong with it.
    Strange,
}

/// Looks at all that a client has sent so far.
pub(crate) fn look(bytes: &[u8]) -> Hello {
    match bytes.first() {
        None => return Hello::Partial,
        Some(&HANDSHAKE) => {}
        Some(letter) if letter.is_ascii_uppercase() => return Hello::Http,
        Some(_) => return Hello::Strange,
    }
    if bytes.len() > WIRE_BYTES_MAX {
        return Hello::Strange;
    }
    let mut message = Vec::new();
    let mut rest = bytes;
    while let [kind, major, _, high, low, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != HANDSHAKE || *major != 3 || len == 0 {
            return Hello::Strange;
        }
        let Some((fragment, after)) = tail.split_at_checked(len) else { break };
        if message.is_empty() && whole(fragment) == Some(true) {
            return judge(fragment, bytes);
        }
        message.extend_from_slice(fragment);
        match whole(&message) {
            Some(true) => return judge(&message, bytes),
            Some(false) => rest = after,
            None => return Hello::Strange,
        }
    }
    Hello::Partial
}

/// Is the handshake message at the front complete? `None`: it is no ClientHello.
fn whole(message: &[u8]) -> Option<bool> {
    match message {
        [CLIENT_HELLO, a, b, c, body @ ..] => {
            Some(body.len() >= u32::from_be_bytes([0, *a, *b, *c]) as usize)
        }
        [CLIENT_HELLO, ..] | [] => Some(false),
        [..] => None,
    }
}

fn judge(message: &[u8], wire: &[u8]) -> Hello {
    let Some(offer) = Offer::parse(&message[4..]) else { return Hello::Strange };
    match offer.fragment_code {
        Some(code @ 1..=4) if offer.random == PROBE_RANDOM && wire[9..11] == TLS_1_2 => {
            Hello::Probe(answer(offer.suite, code))
        }
        Some(code @ 1..=4) => Hello::Whole(Some(512 << (code - 1))),
        Some(_) | None => Hello::Whole(None),
    }
}

/// What matters here of a ClientHello.
struct Offer<'a> {
    random: &'a [u8],
    /// The suite it would like best.
    suite: [u8; 2],
    fragment_code: Option<u8>,
}

impl<'a> Offer<'a> {
    /// `None`: it is not in the form of RFC 5246 7.4.1.2.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let (random, rest) = body.get(2..)?.split_at_checked(32)?;
        let (_session, rest) = sized::<1>(rest)?;
        let (suites, rest) = sized::<2>(rest)?;
        let (_compression, rest) = sized::<1>(rest)?;
        let suite = *suites.first_chunk()?;
        let mut extensions = if rest.is_empty() { rest } else { sized::<2>(rest)?.0 };
        let mut fragment_code = None;
        while let Some((kind, rest)) = extensions.split_first_chunk::<2>() {
            let (content, rest) = sized::<2>(rest)?;
            if *kind == MAX_FRAGMENT_LENGTH {
                fragment_code = content.first().copied().filter(|_| content.len() == 1);
            }
            extensions = rest;
        }
        Some(Self { random, suite, fragment_code })
    }
}

/// Splits off a field that begins with its length in `N` bytes.
fn sized<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<N>()?;
    let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    rest.split_at_checked(len)
}

/// A ServerHello that says yes. Nothing follows it and no key comes of it: the device has asked
/// with a constant where the random number belongs, looks for the extension, and closes.
fn answer(suite: [u8; 2], code: u8) -> Vec<u8> {
    let mut answer = vec![HANDSHAKE, 3, 3, 0, 49, 2, 0, 0, 45, 3, 3];
    answer.extend_from_slice(&PROBE_RANDOM);
    answer.push(0);
    answer.extend_from_slice(&suite);
    answer.extend_from_slice(&[0, 0, 5, 0, 1, 0, 1, code]);
    answer
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const MAX_FRAGMENT_LENGTH: [u8; 2] = [0, 1];
const TLS_1_2: [u8; 2] = [3, 3];
/// What the ESP8266 core sends as random in its probe, and nobody else.
const PROBE_RANDOM: [u8; 32] = [
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
];
/// Ten times what browsers send. Beyond, the limits of TLS itself hold.
const WIRE_BYTES_MAX: usize = 16 * 1024;
