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

/// 1 in each byte, and the highest bit of each.
pub(crate) const ONES: u64 = u64::from_le_bytes([0x01; 8]);
pub(crate) const HIGHS: u64 = ONES * 0x80;
