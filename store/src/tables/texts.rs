//! Texts that many rows share, each kept once: versions, platforms, environment hashes.

use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::HashTable;
use rapidhash::fast::RandomState;

/// Stands for a text in four bytes; `Option<TextId>` takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextId(NonZeroU32);

/// Texts by their number, counted by use and forgotten with the last one.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    entries: Vec<Counted>,
    free: Vec<TextId>,
    by_text: HashTable<TextId>,
    hasher: RandomState,
}

impl Texts {
    /// The text behind a number.
    pub(crate) fn text(&self, id: TextId) -> &Arc<str> {
        &self.entries[id.index()].text
    }

    /// Counts one more use of a text.
    pub(crate) fn add(&mut self, text: &str) -> TextId {
        let hash = self.hasher.hash_one(text);
        let entries = &mut self.entries;
        if let Some(id) = self.by_text.find(hash, |id| *entries[id.index()].text == *text) {
            entries[id.index()].uses += 1;
            return *id;
        }
        let counted = Counted { text: Arc::from(text), uses: 1 };
        let id = match self.free.pop() {
            Some(id) => {
                entries[id.index()] = counted;
                id
            }
            None => {
                entries.push(counted);
                TextId::from_length(entries.len())
            }
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.by_text.insert_unique(hash, id, |id| hasher.hash_one(&*entries[id.index()].text));
        id
    }

    /// Counts one use less.
    pub(crate) fn remove(&mut self, id: TextId) {
        let counted = &mut self.entries[id.index()];
        counted.uses -= 1;
        if counted.uses > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*counted.text);
        if let Ok(entry) = self.by_text.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        counted.text = Arc::from("");
        self.free.push(id);
    }
}

#[derive(Debug)]
struct Counted {
    text: Arc<str>,
    uses: u32,
}

impl TextId {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// The number of the last of so many entries. There are never more than rows times columns,
    /// and a row number has 32 bits.
    fn from_length(length: usize) -> Self {
        let number = u32::try_from(length).ok().and_then(NonZeroU32::new);
        Self(number.expect("fewer than 2^32 different texts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_kept_once() {
        let mut texts = Texts::default();
        let one = texts.add("1.0.0");
        assert_eq!(texts.add("1.0.0"), one);
        let other = texts.add("1.0.1");
        assert_ne!(other, one);
        assert_eq!(&**texts.text(one), "1.0.0");
        assert_eq!(&**texts.text(other), "1.0.1");
        assert_eq!(size_of::<Option<TextId>>(), 4);
    }

    #[test]
    fn a_text_is_forgotten_with_its_last_use() {
        let mut texts = Texts::default();
        let one = texts.add("1.0.0");
        texts.add("1.0.0");
        texts.remove(one);
        assert_eq!(&**texts.text(one), "1.0.0");
        texts.remove(one);
        assert_eq!(texts.add("2.0.0"), one, "the number is used again");
        assert_ne!(texts.add("1.0.0"), one);
        assert_eq!(texts.entries.len(), 2);
    }

    #[test]
    fn many_texts_are_all_found_again() {
        let mut texts = Texts::default();
        let ids: Vec<TextId> = (0..1000).map(|i| texts.add(&format!("text {i}"))).collect();
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(texts.add(&format!("text {i}")), *id);
        }
    }
}
