//! Text eight bytes at a time: where a run of plain bytes ends.

/// Where in `bytes`, which are fewer than 4 GiB, the run that begins at `start` ends: at the first
/// byte that `ends` marks, or with the bytes. `ends` sets the highest bit of each byte of a word
/// that ends a run, NULs among them. It need only be exact up to the lowest such byte; so borrows
/// and carries may travel up from there.
#[inline(always)]
pub(crate) fn run_end(bytes: &[u8], start: usize, ends: impl Fn(u64) -> u64) -> usize {
    // A sum of 32 bits is no overflow of 64: one comparison guards each word.
    let mut at = start as u32;
    while let Some(word) = chunk(bytes, at as usize) {
        let found = ends(u64::from_le_bytes(*word));
        if found != 0 {
            return at.wrapping_add(found.trailing_zeros() / 8) as usize;
        }
        at = at.wrapping_add(8);
    }
    short_run_end(bytes, at as usize, ends)
}

/// The bytes from `at` on, which is less than 4 GiB.
#[inline(always)]
pub(crate) fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    let at = at as u32 as usize;
    bytes.get(at..at + N)?.first_chunk()
}

/// The same as [`run_end`] where less than a word is left, which NULs fill up.
#[cold]
#[inline(never)]
fn short_run_end(bytes: &[u8], at: usize, ends: impl Fn(u64) -> u64) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut word = [0; 8];
    word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    at + (ends(u64::from_le_bytes(word)).trailing_zeros() / 8) as usize
}

/// Is `text` this `lower`-case one of letters, digits, `-` and `/`, of four bytes or more, in any
/// case? Exact where there are no control characters: but for those, only letters fall together
/// when bit 5 is set.
#[inline]
pub(crate) fn is<const N: usize>(text: &[u8], lower: &[u8; N]) -> bool {
    let Ok(text) = <&[u8; N]>::try_from(text) else {
        return false;
    };
    // By words of eight or four bytes, the last of which may overlap with the one before it.
    match (text.last_chunk(), lower.last_chunk()) {
        (Some(last), Some(lower_last)) => {
            let (words, lower_words) = (text.as_chunks().0.iter(), lower.as_chunks().0);
            words.zip(lower_words).chain([(last, lower_last)]).fold(0, |difference, (a, b)| {
                difference | ((u64::from_le_bytes(*a) | LOWER) ^ u64::from_le_bytes(*b))
            }) == 0
        }
        _ => {
            let ends = [text.first_chunk(), text.last_chunk()];
            let lower_ends = [lower.first_chunk(), lower.last_chunk()];
            ends.map(|end| end.map(|end| u32::from_le_bytes(*end) | LOWER as u32))
                == lower_ends.map(|end| end.map(|end| u32::from_le_bytes(*end)))
        }
    }
}

/// Is one of the eight bytes this one?
#[inline]
pub(crate) fn has_byte(word: u64, byte: u8) -> bool {
    let others = word ^ (ONES * u64::from(byte));
    others.wrapping_sub(ONES) & !others & HIGHS != 0
}

/// 1 in each byte, and the highest bit of each.
pub(crate) const ONES: u64 = u64::from_le_bytes([0x01; 8]);
pub(crate) const HIGHS: u64 = ONES * 0x80;
/// Makes letters lower case.
pub(crate) const LOWER: u64 = ONES * 0x20;
