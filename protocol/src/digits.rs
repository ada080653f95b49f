//! Digits: hexadecimal and decimal, both ways.

/// Lower-case hexadecimal of up to 32 bytes' worth of digest: MD5 (16) or SHA-256 (32).
#[must_use]
pub fn hex_text<const BYTES: usize, const DIGITS: usize>(bytes: &[u8; BYTES]) -> [u8; DIGITS] {
    const { assert!(DIGITS == 2 * BYTES && BYTES.is_multiple_of(4)) };
    let mut text = [0; DIGITS];
    for (eight, four) in text.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        *eight = eight_digits(u32::from_be_bytes(*four));
    }
    text
}

/// The inverse of [`hex_text`]: exactly `2 * BYTES` lower-case digits; `None` for anything else.
#[must_use]
pub fn bytes_from_hex<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let (pairs, []) = text.as_chunks() else { return None };
    let pairs: &[[u8; 2]; BYTES] = pairs.try_into().ok()?;
    // Two passes without an early end, so that both become a few vector instructions.
    let is_digit = |b: u8| b.is_ascii_digit() | matches!(b, b'a'..=b'f');
    if !pairs.as_flattened().iter().fold(true, |all, b| all & is_digit(*b)) {
        return None;
    }
    // Letters have bit 6 set, and their low four bits count from 1.
    let value = |digit: u8| (digit & 15).wrapping_add((digit >> 6).wrapping_mul(9));
    Some(pairs.map(|[high, low]| value(high) << 4 | value(low)))
}

/// Reads eight hexadecimal digits of either case at once; `None` if there is anything else. They
/// are in every request, and too few for vector instructions, but are not taken one by one.
pub(crate) fn from_eight_digits(digits: &[u8; 8]) -> Option<u32> {
    let text = u64::from_be_bytes(*digits);
    let letters = text >> 6 & EACH;
    let values = (text & NIBBLES).wrapping_add(letters.wrapping_mul(9)) & NIBBLES;
    // Whatever was no digit does not come out as it went in.
    if text | letters << 5 != text_of(values) {
        return None;
    }
    let pairs = (values >> 4 | values) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs >> 8 | pairs) & 0x0000_ffff_0000_ffff;
    Some((quads >> 16 | quads) as u32)
}

/// The inverse of [`from_eight_digits`], in lower case.
pub(crate) fn eight_digits(value: u32) -> [u8; 8] {
    let value = u64::from(value);
    let quads = (value << 16 | value) & 0x0000_ffff_0000_ffff;
    let pairs = (quads << 8 | quads) & 0x00ff_00ff_00ff_00ff;
    text_of((pairs << 4 | pairs) & NIBBLES).to_be_bytes()
}

/// The digits of eight values below 16, one in each byte.
fn text_of(values: u64) -> u64 {
    let above_nine = values.wrapping_add(6 * EACH) >> 4 & EACH;
    let to_letters = above_nine.wrapping_mul(u64::from(b'a' - b'0' - 10));
    values.wrapping_add(u64::from(b'0') * EACH).wrapping_add(to_letters)
}

/// Writes a number in decimal, two digits at a time.
pub(crate) fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; DIGITS_MAX];
    let mut at = digits.len();
    let mut rest = number;
    while rest >= 10 {
        let pair = PAIRS[(rest % 100) as usize];
        rest /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair);
    }
    if rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + rest as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// 1 in each byte, and the low half of each.
const EACH: u64 = 0x0101_0101_0101_0101;
const NIBBLES: u64 = 15 * EACH;
/// Digits of `u64::MAX`.
const DIGITS_MAX: usize = 20;

/// The numbers below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        pairs[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn eight_digits_are_read_as_one_by_one(text in "[0-9a-fA-F]{8}|[ -~]{8}") {
            let number = u32::from_str_radix(&text, 16).ok().filter(|_| !text.contains('+'));
            let digits = text.as_bytes().try_into().expect("eight");
            prop_assert_eq!(from_eight_digits(digits), number);
            let is_lower = !text.bytes().any(|b| b.is_ascii_uppercase());
            let lower = number.filter(|_| is_lower).map(u32::to_be_bytes);
            prop_assert_eq!(bytes_from_hex(text.as_bytes()), lower);
        }

        #[test]
        fn eight_digits_are_written_as_one_by_one(value: u32) {
            let expected = format!("{value:08x}");
            prop_assert_eq!(&eight_digits(value)[..], expected.as_bytes());
        }

        #[test]
        fn digests_survive_the_round_trip(bytes: [u8; 32]) {
            let text: [u8; 64] = hex_text(&bytes);
            prop_assert_eq!(bytes_from_hex(&text), Some(bytes));
        }
    }

    #[test]
    fn no_byte_but_a_digit_is_taken_for_one() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                let mut text = *b"0a1b2c3d";
                text[at] = byte;
                let is_hex = byte.is_ascii_hexdigit();
                assert_eq!(from_eight_digits(&text).is_some(), is_hex, "{byte:#x} at {at}");
                let lower: Option<[u8; 4]> = bytes_from_hex(&text);
                let is_lower = is_hex && !byte.is_ascii_uppercase();
                assert_eq!(lower.is_some(), is_lower, "{byte:#x} at {at}");
            }
        }
    }
}
