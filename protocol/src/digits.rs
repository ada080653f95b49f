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
    let mut all = 0;
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (LOWER_DIGITS[usize::from(pair[0])], LOWER_DIGITS[usize::from(pair[1])]);
        all |= high | low;
        *byte = high << 4 | low & 15;
    }
    (all != NO_DIGIT).then_some(bytes)
}

/// Writes a number in decimal.
pub(crate) fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; DIGITS_MAX];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

const fn digit_values(upper: bool) -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[HEX[value] as usize] = value as u8;
        if upper {
            values[HEX[value].to_ascii_uppercase() as usize] = value as u8;
        }
        value += 1;
    }
    values
}

pub(crate) const HEX: &[u8; 16] = b"0123456789abcdef";
/// What a byte that is no hexadecimal digit has in the tables; absorbs all others in an `or`.
pub(crate) const NO_DIGIT: u8 = 0xff;
/// The values of lower-case digits.
const LOWER_DIGITS: [u8; 256] = digit_values(false);
/// The values of digits of any case.
pub(crate) const DIGITS: [u8; 256] = digit_values(true);

/// Digits of `u64::MAX`.
const DIGITS_MAX: usize = 20;
