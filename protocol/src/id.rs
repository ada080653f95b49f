//! Names of things, parsed once and then carried as plain `Copy` values.
//!
//! Secrets ([`ApiKey`], [`Token`]) have no readable `Debug`: they cannot reach a log by accident.

use std::fmt;

pub use crate::digits::{bytes_from_hex, hex_text};

use crate::digits::from_eight_digits;

/// The owner of devices and keys: 64 to 128 characters of `[a-z0-9]` (docs/wire.md 1.1).
///
/// ```
/// use otter_protocol::OwnerId;
/// let owner = OwnerId::parse(&"a1".repeat(32)).expect("64 characters");
/// assert_eq!(owner.as_str().len(), 64);
/// assert!(OwnerId::parse("short").is_none());
/// ```
#[derive(Clone, Copy)]
pub struct OwnerId {
    length: u8,
    text: [u8; Self::BYTES_MAX],
}

impl OwnerId {
    /// Fewest characters of an owner id.
    pub const BYTES_MIN: usize = 64;
    /// Most characters of an owner id.
    pub const BYTES_MAX: usize = 128;

    /// Takes the text of an owner id; `None` unless it is 64 to 128 of `[a-z0-9]`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text.as_bytes())
    }

    /// The same of bytes that nobody has looked at.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let fits = (Self::BYTES_MIN..=Self::BYTES_MAX).contains(&text.len());
        // Without a branch per byte: this runs in every request.
        let plain = |b: &u8| b.is_ascii_lowercase() | b.is_ascii_digit();
        if !fits || !text.iter().fold(true, |all, b| all & plain(b)) {
            return None;
        }
        let mut inline = [0; Self::BYTES_MAX];
        inline[..text.len()].copy_from_slice(text);
        Some(Self { length: text.len() as u8, text: inline })
    }

    /// The text it was parsed from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        ascii(self.as_bytes())
    }

    /// The bytes of that text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }
}

impl PartialEq for OwnerId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for OwnerId {}

impl PartialOrd for OwnerId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OwnerId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl std::hash::Hash for OwnerId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A device's `udid`: a UUID, 36 characters on the wire, 16 bytes here (docs/wire.md 1.1).
///
/// ```
/// use otter_protocol::DeviceId;
/// let device = DeviceId::parse("5CCF7FEE-1337-4000-8000-00000000AB01").expect("a UUID");
/// assert_eq!(device.to_string(), "5ccf7fee-1337-4000-8000-00000000ab01");
/// assert!(DeviceId::parse("0").is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 16]);

impl DeviceId {
    /// Takes 36 characters, `8-4-4-4-12` hexadecimal digits of any case; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text.as_bytes())
    }

    /// The same of bytes that nobody has looked at.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        uuid_from(text).map(Self)
    }

    /// The 36 characters as they go on the wire, lower case.
    #[must_use]
    pub fn text(&self) -> [u8; 36] {
        uuid_text(&self.0)
    }
}

/// A published release. Printed like a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseId(pub [u8; 16]);

impl ReleaseId {
    /// Takes the 36 characters that [`fmt::Display`] prints; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        uuid_from(text.as_bytes()).map(Self)
    }
}

macro_rules! shown_as_uuid {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ascii(&uuid_text(&self.0)))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
shown_as_uuid!(DeviceId, ReleaseId);

/// An API key: 64 lower-case hexadecimal digits on the wire, 32 bytes here (docs/wire.md 4).
///
/// No `PartialEq` and no readable `Debug`: comparing in constant time is the store's work.
#[derive(Clone, Copy)]
pub struct ApiKey(pub [u8; 32]);

impl ApiKey {
    /// Takes the value of an `Authentication` header: blanks and quotes around it are dropped, the
    /// rest must be exactly 64 lower-case hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let not_ours = |b: &u8| matches!(b, b' ' | b'\t' | b'"' | b'\'');
        let start = text.iter().position(|b| !not_ours(b))?;
        let end = text.iter().rposition(|b| !not_ours(b))? + 1;
        bytes_from_hex(&text[start..end]).map(Self)
    }

    /// The 64 digits. Only for the owner's eyes: never log them.
    #[must_use]
    pub fn text(&self) -> [u8; 64] {
        hex_text(&self.0)
    }
}

/// A one-time token: 64 lower-case hexadecimal digits on the wire, 32 bytes here (docs/token.md).
#[derive(Clone, Copy)]
pub struct Token(pub [u8; 32]);

impl Token {
    /// Takes exactly 64 lower-case hexadecimal digits; `None` for anything else, so that a
    /// malformed token never reaches the store.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        bytes_from_hex(text).map(Self)
    }

    /// The 64 digits. Only for the device: never log more than [`fmt::Debug`] shows.
    #[must_use]
    pub fn text(&self) -> [u8; 64] {
        hex_text(&self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

impl fmt::Debug for Token {
    /// The first six digits, which is all that may be logged (docs/token.md).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}..)", ascii(&self.text()[..6]))
    }
}

/// A device's MAC address or SigFox id, normalised (docs/wire.md 1.5), in eight bytes.
///
/// ```
/// use otter_protocol::Mac;
/// assert_eq!(Mac::parse("5CCF7F3D8F2A").expect("a MAC").to_string(), "5C:CF:7F:3D:8F:2A");
/// assert_eq!(Mac::parse("SIGFOX1A2B3C").expect("an id").to_string(), "SI:GF:OX:1A:2B:3C");
/// assert!(Mac::parse("anything").is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(u64);

impl Mac {
    const SIGFOX: &[u8] = b"SIGFOX";
    /// The top byte counts the digits that follow the SigFox prefix; zero says Ethernet.
    const DIGITS_SHIFT: u32 = 56;
    const SIGFOX_DIGITS_MAX: usize = 8;

    /// Takes 12 hexadecimal digits, or `SIGFOX` and 1 to 8 of them, in any case, with any of
    /// `:`, `-`, `.` between; a blank counts as `0` (library 2.3 pads with blanks). `None` for
    /// anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text.as_bytes())
    }

    /// The same of bytes that nobody has looked at.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        // As the libraries send it: the two overlap by four digits.
        if let (Some(first), Some(last), 12) = (text.first_chunk(), text.last_chunk(), text.len())
            && let (Some(first), Some(last)) = (from_eight_digits(first), from_eight_digits(last))
        {
            return Some(Self(u64::from(first) << 16 | u64::from(last & 0xffff)));
        }
        match hex_value(text) {
            Some((value, 12)) => Some(Self(value)),
            Some(_) => None,
            None => Self::parse_sigfox(text),
        }
    }

    fn parse_sigfox(text: &[u8]) -> Option<Self> {
        let mut rest = text;
        for letter in Self::SIGFOX {
            while let [b':' | b'-' | b'.', after @ ..] = rest {
                rest = after;
            }
            rest = match rest {
                [first, after @ ..] if first.eq_ignore_ascii_case(letter) => after,
                _ => return None,
            };
        }
        let (value, digits) = hex_value(rest)?;
        let fits = (1..=Self::SIGFOX_DIGITS_MAX).contains(&digits);
        fits.then_some(Self(value | (digits as u64) << Self::DIGITS_SHIFT))
    }

    /// The value for storage; [`Mac::from_bits`] takes it back.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The inverse of [`Mac::to_bits`]; `None` for a value which that never returns.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let digits = bits >> Self::DIGITS_SHIFT;
        let value = bits & ((1 << Self::DIGITS_SHIFT) - 1);
        let value_bits = if digits == 0 { 48 } else { 4 * digits };
        (digits <= Self::SIGFOX_DIGITS_MAX as u64 && value >> value_bits == 0).then_some(Self(bits))
    }

    /// The digits after the prefix, upper case, if this is a SigFox id (docs/wire.md 8).
    #[must_use]
    pub fn sigfox_id(self) -> Option<String> {
        let digits = (self.0 >> Self::DIGITS_SHIFT) as usize;
        let value = self.0 & ((1 << Self::DIGITS_SHIFT) - 1);
        (digits > 0).then(|| format!("{value:0digits$X}"))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.sigfox_id() {
            Some(id) => format!("SIGFOX{id}"),
            None => format!("{:012X}", self.0),
        };
        for (i, pair) in digits.as_bytes().chunks(2).enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ":" }, ascii(pair))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A device's display name: at most 64 bytes, and safe inside the replies that old libraries cut
/// apart by text search (docs/wire.md 2.2, rules 3 to 5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    length: u8,
    text: [u8; Self::BYTES_MAX],
}

impl Alias {
    /// Most bytes of an alias.
    pub const BYTES_MAX: usize = 64;
    /// What libraries send before anybody named the device.
    const UNNAMED: &str = "unnamed";

    /// Makes any text safe: drops `"`, `\`, `{`, `}` and control characters, cuts at 64 bytes.
    /// `None` if nothing is left, for `unnamed`, which says that there is no name yet, and for
    /// texts that libraries would take for something else (`registration...`).
    #[must_use]
    pub fn clean(text: &str) -> Option<Self> {
        let mut alias = Self { length: 0, text: [0; Self::BYTES_MAX] };
        let safe = |c: &char| !c.is_control() && !matches!(c, '"' | '\\' | '{' | '}');
        for c in text.chars().filter(safe).skip_while(|c| c.is_whitespace()) {
            let start = usize::from(alias.length);
            let Some(room) = alias.text.get_mut(start..start + c.len_utf8()) else { break };
            c.encode_utf8(room);
            alias.length += c.len_utf8() as u8;
        }
        alias.length = alias.as_str().trim_end().len() as u8;
        // Aliases are compared whole.
        alias.text[usize::from(alias.length)..].fill(0);
        let kept = alias.as_str();
        let fine = !kept.is_empty() && kept != Self::UNNAMED && !misleads(kept);
        fine.then_some(alias)
    }

    /// The name of a device that nobody has named: `otter-` and the last six digits of its id.
    #[must_use]
    pub fn invented(device: DeviceId) -> Self {
        let mut alias = Self { length: 12, text: [0; Self::BYTES_MAX] };
        alias.text[..6].copy_from_slice(b"otter-");
        alias.text[6..12].copy_from_slice(&device.text()[30..]);
        alias
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The bytes of the text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    /// As much of the start as fits into `bytes_max`.
    pub(crate) fn start(&self, bytes_max: usize) -> &str {
        let text = self.as_str();
        text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Would a library take a JSON string of this text for something else (docs/wire.md 2.2)? Library
/// 2.9 looks for a quote and one of four words, and the last one it finds decides what the reply is
/// (rule 4); 2.x and 3.x drop a reply with a certain text in it (rule 5).
pub(crate) fn misleads(text: &str) -> bool {
    const WORDS: [&str; 4] = ["registration", "notification", "configuration", "FIRMWARE_UPDATE"];
    const DROPPED: &str = "old_protocol_owner:-undefined-";
    WORDS.iter().any(|word| text.starts_with(word)) || text.contains(DROPPED)
}

const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];
/// Where its five parts stand: before each of them are as many dashes as parts.
const UUID_PARTS: [(usize, usize); 5] = [(0, 8), (9, 13), (14, 18), (19, 23), (24, 36)];

/// The value and the number of hexadecimal digits: separators are skipped, a blank is a zero.
/// `None` if there is anything else, or too much of it.
fn hex_value(text: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    let mut digits = 0;
    for byte in text {
        let digit = match byte {
            b':' | b'-' | b'.' => continue,
            b' ' => 0,
            _ => char::from(*byte).to_digit(16)?,
        };
        if digits == 16 {
            return None;
        }
        value = value << 4 | u64::from(digit);
        digits += 1;
    }
    Some((value, digits))
}

fn uuid_from(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if UUID_DASHES.iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let mut digits = [0; 32];
    for (dashes, (start, end)) in UUID_PARTS.into_iter().enumerate() {
        digits[start - dashes..end - dashes].copy_from_slice(&text[start..end]);
    }
    let mut bytes = [0; 16];
    for (four, eight) in bytes.as_chunks_mut().0.iter_mut().zip(digits.as_chunks().0) {
        *four = from_eight_digits(eight)?.to_be_bytes();
    }
    Some(bytes)
}

fn uuid_text(bytes: &[u8; 16]) -> [u8; 36] {
    let digits: [u8; 32] = hex_text(bytes);
    let mut text = [b'-'; 36];
    for (dashes, (start, end)) in UUID_PARTS.into_iter().enumerate() {
        text[start..end].copy_from_slice(&digits[start - dashes..end - dashes]);
    }
    text
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_64_to_128_lower_case_letters_and_digits() {
        for (text, valid) in [
            ("a".repeat(63), false),
            ("a".repeat(64), true),
            ("0".repeat(128), true),
            ("a".repeat(129), false),
            ("A".repeat(64), false),
            (format!("{}-", "a".repeat(63)), false),
        ] {
            assert_eq!(OwnerId::parse(&text).map(|o| o.to_string()), valid.then_some(text));
        }
    }

    #[test]
    fn owners_are_ordered_as_their_texts() {
        let texts = ["0".repeat(64), "0".repeat(65), "a".repeat(64), "b".repeat(128)];
        let owners = texts.map(|text| OwnerId::parse(&text).expect("an owner"));
        assert!(owners.is_sorted() && owners[0] < owners[1] && owners[2] < owners[3]);
    }

    #[test]
    fn macs_are_normalised_as_the_wire_contract_says() {
        for (text, shown) in [
            ("5CCF7F3D8F2A", Some("5C:CF:7F:3D:8F:2A")),
            ("5c:cf:7f:3d:8f:2a", Some("5C:CF:7F:3D:8F:2A")),
            ("5C-CF-7F-3D-8F-2A", Some("5C:CF:7F:3D:8F:2A")),
            ("5ccf.7f3d.8f2a", Some("5C:CF:7F:3D:8F:2A")),
            ("5CCF7F 3D8F2", Some("5C:CF:7F:03:D8:F2")),
            ("SIGFOX1A2B3C", Some("SI:GF:OX:1A:2B:3C")),
            ("SI:GF:OX:1A:2B:3C", Some("SI:GF:OX:1A:2B:3C")),
            ("SIGFOX0", Some("SI:GF:OX:0")),
            ("SIGFOX", None),
            ("00112233445566778899", None),
            ("SIGFOX123456789", None),
            ("5CCF7F3D8F2", None),
            ("5CCF7F3D8F2A0", None),
            ("5CCF7F3D8F2G", None),
            ("", None),
        ] {
            let mac = Mac::parse(text);
            assert_eq!(mac.map(|m| m.to_string()).as_deref(), shown, "{text}");
            assert_eq!(mac.and_then(|m| Mac::from_bits(m.to_bits())), mac);
        }
        assert_eq!(Mac::from_bits(1 << 48), None);
        assert_eq!(Mac::from_bits(9 << 56), None);
    }

    #[test]
    fn keys_are_trimmed_and_exact() {
        let text = "0123456789abcdef".repeat(4);
        for shape in ["{}", " {}", "\"{}\"", "' {} '"] {
            let key = ApiKey::parse(shape.replace("{}", &text).as_bytes()).expect("a key");
            assert_eq!(key.text(), text.as_bytes());
        }
        for wrong in [&text[1..], &text.to_uppercase(), "", "\"\"", &format!("{text}0")] {
            assert!(ApiKey::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", ApiKey([7; 32])), "ApiKey(..)");
        assert_eq!(format!("{:?}", Token([0xab; 32])), "Token(ababab..)");
    }

    #[test]
    fn an_alias_cannot_break_the_reply_around_it() {
        for (text, kept) in [
            ("dev1", Some("dev1")),
            ("unnamed", None),
            ("  ", None),
            ("{ }", None),
            (" a b ", Some("a b")),
            ("my \"registration\":{}", Some("my registration:")),
            ("\"registration\":{}", None),
            ("FIRMWARE_UPDATE", None),
            ("a\u{7}b\\c", Some("abc")),
            ("old_protocol_owner:-undefined-", None),
        ] {
            assert_eq!(Alias::clean(text).as_ref().map(Alias::as_str), kept);
        }
        assert_eq!(Alias::clean("a b  "), Alias::clean("a b"));
        assert_eq!(Alias::clean(&"x".repeat(200)).expect("text").as_str().len(), 64);
        assert_eq!(Alias::clean(&"\u{e9}".repeat(200)).expect("text").as_str().chars().count(), 32);
    }

    #[test]
    fn ids_survive_the_round_trip() {
        let id = DeviceId(*b"0123456789abcdef");
        assert_eq!(DeviceId::parse(&id.to_string()), Some(id));
        for wrong in ["0", "5ccf7fee013370400080000000000000ab01", &"-".repeat(36)] {
            assert_eq!(DeviceId::parse(wrong), None);
        }
    }
}
