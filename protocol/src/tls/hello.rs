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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello as a message.
    fn message(random: [u8; 32], extensions: &[u8]) -> Vec<u8> {
        let mut body = [&TLS_1_2[..], &random, &[0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]].concat();
        if !extensions.is_empty() {
            body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
            body.extend_from_slice(extensions);
        }
        let [_, len @ ..] = (body.len() as u32).to_be_bytes();
        [&[CLIENT_HELLO][..], &len, &body].concat()
    }

    /// In records that have so many bytes of it each.
    fn wire(message: &[u8], fragment: usize) -> Vec<u8> {
        let record = |bytes: &[u8]| {
            let [high, low] = (bytes.len() as u16).to_be_bytes();
            [&[HANDSHAKE, 3, 1, high, low], bytes].concat()
        };
        message.chunks(fragment).flat_map(record).collect()
    }

    fn hello(extensions: &[u8]) -> Vec<u8> {
        wire(&message([9; 32], extensions), 16_384)
    }

    fn probe(code: u8) -> Vec<u8> {
        wire(&message(PROBE_RANDOM, &[0, 1, 0, 1, code]), 16_384)
    }

    #[test]
    fn a_hello_says_how_large_records_may_be() {
        let server_name = [0, 0, 0, 4, 0, 2, 0, 0];
        for (extensions, fragment_max) in [
            (&[][..], None),
            (&[0, 1, 0, 1, 1], Some(512)),
            (&[0, 1, 0, 1, 2], Some(1024)),
            (&[0, 1, 0, 1, 3], Some(2048)),
            (&[0, 1, 0, 1, 4], Some(4096)),
            (&[0, 1, 0, 1, 0], None),
            (&[0, 1, 0, 1, 5], None),
            (&[0, 1, 0, 0], None),
            (&[0, 1, 0, 2, 1, 1], None),
            (&[&server_name[..], &[0, 1, 0, 1, 2]].concat(), Some(1024)),
            (&[&[0, 1, 0, 1, 2], &server_name[..]].concat(), Some(1024)),
            (&server_name, None),
        ] {
            assert_eq!(look(&hello(extensions)), Hello::Whole(fragment_max), "{extensions:?}");
        }
    }

    #[test]
    fn a_probe_is_answered_with_its_suite_and_its_wish() {
        for code in 1..=4 {
            let Hello::Probe(answer) = look(&probe(code)) else { panic!("no probe: {code}") };
            assert_eq!(answer.len(), 5 + usize::from(answer[4]));
            assert_eq!(answer.len(), 9 + usize::from(answer[8]));
            assert_eq!(answer[11..43], PROBE_RANDOM);
            assert_eq!(answer[43..], [0, 0xc0, 0x2b, 0, 0, 5, 0, 1, 0, 1, code]);
        }
        // Without the wish it would have no answer that means anything.
        assert_eq!(look(&wire(&message(PROBE_RANDOM, &[]), 16_384)), Hello::Whole(None));
        assert_eq!(look(&probe(0)), Hello::Whole(None));
    }

    /// What comes behind it changes nothing, and what is missing is waited for.
    #[test]
    fn a_hello_that_is_cut_is_partial() {
        for whole in [hello(&[0, 1, 0, 1, 1]), probe(1)] {
            let expected = look(&whole);
            for end in 0..whole.len() {
                assert_eq!(look(&whole[..end]), Hello::Partial, "{end}");
            }
            assert_eq!(look(&[&whole[..], &[22, 3, 3]].concat()), expected);
        }
    }

    #[test]
    fn a_hello_may_come_in_records_of_any_size() {
        let message = message([9; 32], &[0, 1, 0, 1, 3]);
        for fragment in 1..message.len() {
            let wire = wire(&message, fragment);
            assert_eq!(look(&wire), Hello::Whole(Some(2048)), "{fragment}");
            for end in 0..wire.len() {
                assert_eq!(look(&wire[..end]), Hello::Partial, "{end} in records of {fragment}");
            }
        }
    }

    #[test]
    fn what_is_no_hello() {
        for (bytes, expected) in [
            (&b""[..], Hello::Partial),
            (b"G", Hello::Http),
            (b"POST / HTTP/1.1\r\n", Hello::Http),
            (b"get / HTTP/1.1\r\n", Hello::Strange),
            (b"\r\nGET /", Hello::Strange),
            (&[22, 3, 3, 0, 0], Hello::Strange),
            (&[22, 2, 0, 0, 1, 1], Hello::Strange),
            (&[22, 3, 3, 0, 1, 2], Hello::Strange),
            (&[22, 3, 3, 0, 1, 1, 23, 3, 3, 0, 1, 0], Hello::Strange),
            (&[22, 3, 3, 0, 4, 1, 0, 0, 0], Hello::Strange),
            (&[0x80, 46, 1, 3, 1], Hello::Strange),
            (&[21, 3, 3, 0, 2, 2, 40], Hello::Strange),
        ] {
            assert_eq!(look(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    /// Not longer than that: the limits of TLS itself come next.
    #[test]
    fn a_hello_that_is_too_long_is_strange() {
        let padding = vec![0; WIRE_BYTES_MAX];
        let long = [&[0, 21, 0x40, 0][..], &padding].concat();
        assert_eq!(look(&wire(&message([9; 32], &long), 4096)), Hello::Strange);
        let endless = wire(&[&[CLIENT_HELLO, 0xff, 0xff, 0xff][..], &padding].concat(), 100);
        assert_eq!(look(&endless[..WIRE_BYTES_MAX]), Hello::Partial);
        assert_eq!(look(&endless[..=WIRE_BYTES_MAX]), Hello::Strange);
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            look(&bytes);
            look(&wire(&bytes, 7));
            look(&wire(&[&[CLIENT_HELLO, 0, 0, 40][..], &bytes].concat(), 100));
        }

        /// A hello with changes is never more than it was: whatever comes of it, no byte that is
        /// missing is made up.
        #[test]
        fn changes_are_survived(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            end in any::<prop::sample::Index>(),
            is_probe in any::<bool>(),
        ) {
            let mut wire = if is_probe { probe(2) } else { hello(&[0, 1, 0, 1, 1]) };
            for (index, byte) in changes {
                let index = index.index(wire.len());
                wire[index] = byte;
            }
            let whole = look(&wire);
            let part = look(&wire[..end.index(wire.len())]);
            prop_assert!(part == Hello::Partial || part == whole, "{part:?}, then {whole:?}");
        }
    }
}
