//! Digits: hexadecimal and decimal, both ways.

/// Lower-case hexadecimal of up to 32 bytes' worth of digest: MD5 (16) or SHA-256 (32).
#[must_use]
pub fn hex_text<const BYTES: usize, const DIGITS: usize>(bytes: &[u8; BYTES]) -> [u8; DIGITS] {
    const { assert!(DIGITS == 2 * BYTES) };
    let mut text = [0; DIGITS];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    text
}

/// The inverse of [`hex_text`]: exactly `2 * BYTES` lower-case digits; `None` for anything else.
#[must_use]
pub fn bytes_from_hex<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    let mut valid = true;
    for (four, eight) in bytes.chunks_mut(4).zip(text.chunks(8)) {
        let (value, is_hex, is_lower) = eight_digits(eight);
        valid &= is_hex && is_lower;
        four.copy_from_slice(&value.to_be_bytes()[..four.len()]);
    }
    valid.then_some(bytes)
}

/// Reads up to eight hexadecimal digits at once: their value, as if zeros followed, whether all
/// are digits, and whether no letter is upper case. They are in every request, so they are not
/// taken one by one.
pub(crate) fn eight_digits(digits: &[u8]) -> (u32, bool, bool) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const NIBBLES: u64 = 15 * EACH;
    let mut text = [b'0'; 8];
    text[..digits.len()].copy_from_slice(digits);
    let text = u64::from_be_bytes(text);
    // Bit 6 is set in letters, whose low four bits count from 1.
    let letters = text >> 6 & EACH;
    let values = (text & NIBBLES).wrapping_add(letters.wrapping_mul(9)) & NIBBLES;
    // Whatever was no digit does not come out as it went in.
    let above_nine = values.wrapping_add(6 * EACH) >> 4 & EACH;
    let lower = values.wrapping_add(0x30 * EACH).wrapping_add(above_nine.wrapping_mul(39));
    let is_hex = text | letters << 5 == lower;
    let pairs = (values >> 4 | values) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs >> 8 | pairs) & 0x0000_ffff_0000_ffff;
    ((quads >> 16 | quads) as u32, is_hex, text == lower)
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

pub(crate) const HEX: &[u8; 16] = b"0123456789abcdef";
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
        fn eight_digits_are_read_as_one_by_one(text in "[0-9a-fA-F]{0,8}|[ -~]{0,8}") {
            let padded = format!("{text:0<8}");
            let value = u32::from_str_radix(&padded, 16).ok().filter(|_| !text.contains('+'));
            let (found, is_hex, is_lower) = eight_digits(text.as_bytes());
            prop_assert_eq!(is_hex.then_some(found), value);
            let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
            prop_assert!(!is_hex || is_lower == lower);
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
                let (_, is_hex, is_lower) = eight_digits(&text);
                assert_eq!(is_hex, byte.is_ascii_hexdigit(), "{byte:#x} at {at}");
                assert_eq!(is_hex && is_lower, is_hex && !byte.is_ascii_uppercase());
            }
        }
    }
}
