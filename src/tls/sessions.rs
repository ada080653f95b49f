//! The cache of TLS sessions: resumption by session id (RFC 5246 7.3), for devices that have no
//! tickets, such as those with BearSSL.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use rustls::server::StoresServerSessions;
use rustls::time_provider::TimeProvider;

/// Sessions by their ids, for all workers of one server. A full cache drops the oldest; none is
/// given out after twelve hours.
///
/// TLS 1.2 keeps one per full handshake, also of a client that is given a ticket as well. TLS 1.3
/// keeps none as long as there are keys for tickets. A session is good for whoever finds its id
/// here, so listeners that trust different authorities for clients, or ask for no certificate,
/// need a cache each.
///
/// A session takes 138 bytes, everything included: 81 of rustls' own for a client that names
/// `localhost`, 12 of its id, 4 of its age, 16 to find it, 10 in the index, and what the allocator
/// adds. In rustls' `ServerSessionMemoryCache` it takes 314. (Growth of the resident set by 65,536
/// sessions; `cargo run --release -p otter-benches --bin handshakes`.) That one also has one lock
/// for all workers, lets no session end, looks through all ids to remove one, and keeps sessions of
/// any length.
pub(crate) struct Sessions {
    /// Each with its lock, so that two workers seldom meet.
    shards: Box<[Mutex<Shard>]>,
    entries_max: usize,
    time: Arc<dyn TimeProvider>,
}

impl Sessions {
    /// A cache of at most `entries_max` sessions; 0 keeps none, and clients are given no ids. The
    /// limit is spread over the parts that have a lock each, and each drops its own oldest.
    pub(crate) fn new(entries_max: usize, time: Arc<dyn TimeProvider>) -> Self {
        let shards = (entries_max / SHARD_ENTRIES_MIN).clamp(1, SHARDS_MAX);
        let shard = |number| {
            let entries_max = entries_max / shards + usize::from(number < entries_max % shards);
            Mutex::new(Shard { entries_max, ..Shard::default() })
        };
        Self { shards: (0..shards).map(shard).collect(), entries_max, time }
    }

    fn shard(&self, id: &Id) -> MutexGuard<'_, Shard> {
        let shard = id.shard() as usize % self.shards.len();
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unix seconds. Enough until 2106; from then on nothing expires.
    fn now_s(&self) -> Option<u32> {
        let now = self.time.current_time()?.as_secs();
        Some(u32::try_from(now).unwrap_or(u32::MAX))
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let (Some(id), Some(now_s)) = (Id::read(&id), self.now_s()) else { return false };
        if session.is_empty() || session.len() > SESSION_BYTES_MAX {
            return false;
        }
        self.shard(&id).put(Kept { id, kept_s: now_s, session: session.into() }, now_s)
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let (id, now_s) = (Id::read(id)?, self.now_s()?);
        let shard = self.shard(&id);
        let kept = shard.find(&id)?;
        kept.is_alive(now_s).then(|| kept.session.to_vec())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let (id, now_s) = (Id::read(id)?, self.now_s()?);
        let kept = self.shard(&id).remove(&id)?;
        kept.is_alive(now_s).then(|| kept.session.into())
    }

    fn can_cache(&self) -> bool {
        self.entries_max > 0
    }
}

/// Shows no session.
impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("entries_max", &self.entries_max).finish_non_exhaustive()
    }
}

/// A part of the cache.
#[derive(Default)]
struct Shard {
    /// By id: the number of the session.
    index: HashTable<u32>,
    /// In the order in which they came, and are numbered; those that were removed are vacant until
    /// they are the oldest.
    kept: VecDeque<Kept>,
    /// The number of the oldest. Numbers wrap around.
    first: u32,
    entries_max: usize,
}

struct Kept {
    id: Id,
    /// Unix seconds.
    kept_s: u32,
    /// Empty: removed.
    session: Box<[u8]>,
}

/// The first bytes of a session's id, which are as good as all 32: the server made them at random,
/// and who sends others that begin like them gets a session whose secret it does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Id([u8; ID_BYTES]);

impl Shard {
    /// Makes room and keeps a session; false if there is room for none.
    fn put(&mut self, kept: Kept, now_s: u32) -> bool {
        if self.entries_max == 0 {
            return false;
        }
        self.remove(&kept.id);
        while self.kept.len() >= self.entries_max
            || self.kept.front().is_some_and(|oldest| !oldest.is_alive(now_s))
        {
            self.drop_oldest();
        }
        // Fewer than 2^32 are there at a time.
        let number = self.first.wrapping_add(self.kept.len() as u32);
        let hash = kept.id.hash();
        self.kept.push_back(kept);
        let (first, kept) = (self.first, &self.kept);
        let rehash = |number: &u32| kept[place(first, *number)].id.hash();
        self.index.insert_unique(hash, number, rehash);
        true
    }

    fn find(&self, id: &Id) -> Option<&Kept> {
        let is_it = |number: &u32| self.kept[place(self.first, *number)].id == *id;
        let number = self.index.find(id.hash(), is_it)?;
        self.kept.get(place(self.first, *number))
    }

    fn remove(&mut self, id: &Id) -> Option<Kept> {
        let (first, kept) = (self.first, &mut self.kept);
        let is_it = |number: &u32| kept[place(first, *number)].id == *id;
        let entry = self.index.find_entry(id.hash(), is_it).ok()?;
        let (number, _) = entry.remove();
        let kept = kept.get_mut(place(first, number))?;
        Some(Kept { session: std::mem::take(&mut kept.session), ..*kept })
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.kept.front() else { return };
        if !oldest.session.is_empty() {
            let first = self.first;
            if let Ok(entry) = self.index.find_entry(oldest.id.hash(), |number| *number == first) {
                entry.remove();
            }
        }
        self.kept.pop_front();
        self.first = self.first.wrapping_add(1);
    }
}

impl Kept {
    fn is_alive(&self, now_s: u32) -> bool {
        // A clock that was set back makes nothing older.
        !self.session.is_empty() && now_s.saturating_sub(self.kept_s) < SESSION_LIFE_S
    }
}

impl Id {
    fn read(id: &[u8]) -> Option<Self> {
        let id: &[u8; ID_BYTES_WHOLE] = id.try_into().ok()?;
        id.first_chunk().copied().map(Self)
    }

    /// They are random already.
    fn hash(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn shard(&self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

/// Where the session of this number is among those that are kept.
fn place(first: u32, number: u32) -> usize {
    number.wrapping_sub(first) as usize
}

/// How many sessions are kept, unless an operator says otherwise: some 8 MB.
pub(crate) const SESSIONS_MAX: usize = 65_536;
/// Bytes of an id, as rustls makes them.
const ID_BYTES_WHOLE: usize = 32;
/// Bytes of it that are kept.
const ID_BYTES: usize = 12;
/// As long as a ticket is good at least.
const SESSION_LIFE_S: u32 = 12 * 3600;
/// More would be a long chain of a client's certificates; such clients can do with tickets.
const SESSION_BYTES_MAX: usize = 4096;
/// More locks than workers, by far.
const SHARDS_MAX: usize = 64;
/// Fewer would make the order in which they are dropped too much a matter of chance.
const SHARD_ENTRIES_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    /// A clock that the test holds.
    #[derive(Debug, Default)]
    struct Hands(AtomicU64);

    impl TimeProvider for Hands {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
        }
    }

    fn cache(entries_max: usize) -> Sessions {
        Sessions::new(entries_max, Arc::new(Hands(AtomicU64::new(1_795_478_791))))
    }

    /// Ids that differ everywhere, as random ones do.
    fn id(number: u32) -> Vec<u8> {
        ring::digest::digest(&ring::digest::SHA256, &number.to_le_bytes()).as_ref().to_vec()
    }

    fn session(number: u32) -> Vec<u8> {
        [&number.to_le_bytes()[..], &[7; 67]].concat()
    }

    fn put(cache: &Sessions, number: u32) -> bool {
        cache.put(id(number), session(number))
    }

    fn kept(cache: &Sessions, numbers: std::ops::Range<u32>) -> Vec<u32> {
        let is_kept = |number: &u32| match cache.get(&id(*number)) {
            Some(found) => found == session(*number) || panic!("{number} is another"),
            None => false,
        };
        numbers.filter(is_kept).collect()
    }

    #[test]
    fn the_oldest_go_first_and_no_more_are_kept_than_allowed() {
        let cache = cache(50);
        assert!((0..170).all(|number| put(&cache, number)));
        assert_eq!(kept(&cache, 0..170), (120..170).collect::<Vec<_>>());
    }

    #[test]
    fn a_large_cache_keeps_as_many_as_it_may_and_the_newest() {
        let cache = cache(SESSIONS_MAX);
        assert_eq!(cache.shards.len(), SHARDS_MAX);
        assert!((0..200_000).all(|number| put(&cache, number)));
        let all: Vec<u32> = kept(&cache, 0..200_000);
        assert_eq!(all.len(), SESSIONS_MAX);
        // Each part drops its own oldest, so age is not quite the same everywhere.
        assert!(all[0] > 100_000 && kept(&cache, 150_000..200_000).len() == 50_000);
    }

    #[test]
    fn the_limit_is_exact_however_it_is_spread() {
        for entries_max in [1, 63, 64, 127, 130, 1000] {
            let cache = cache(entries_max);
            assert!((0..20_000).all(|number| put(&cache, number)));
            let shards = cache.shards.iter().map(|shard| shard.lock().expect("no panic"));
            let counts: Vec<_> =
                shards.map(|shard| (shard.kept.len(), shard.index.len())).collect();
            assert_eq!(counts.iter().map(|(kept, _)| kept).sum::<usize>(), entries_max);
            assert!(counts.iter().all(|(kept, indexed)| kept == indexed));
            assert_eq!(kept(&cache, 0..20_000).len(), entries_max);
        }
    }

    #[test]
    fn sessions_end_after_twelve_hours_and_make_room() {
        let hands = Arc::new(Hands(AtomicU64::new(1000)));
        let cache = Sessions::new(50, hands.clone());
        put(&cache, 1);
        hands.0.store(2000, Ordering::Relaxed);
        put(&cache, 2);
        let last = 1000 + u64::from(SESSION_LIFE_S);
        hands.0.store(last - 1, Ordering::Relaxed);
        assert_eq!(kept(&cache, 0..9), [1, 2]);
        hands.0.store(last, Ordering::Relaxed);
        assert_eq!(kept(&cache, 0..9), [2]);
        assert_eq!(cache.take(&id(1)), None);
        put(&cache, 3);
        assert_eq!(kept(&cache, 0..9), [2, 3]);
        let in_memory = || cache.shards[0].lock().expect("no panic").kept.len();
        assert_eq!(in_memory(), 2, "the first is gone");
        hands.0.store(500, Ordering::Relaxed);
        assert_eq!(kept(&cache, 0..9), [2, 3], "a clock that was set back ends nothing");
        hands.0.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(kept(&cache, 0..9), [] as [u32; 0]);
        put(&cache, 4);
        assert_eq!((in_memory(), kept(&cache, 0..9)), (1, vec![4]));
    }

    #[test]
    fn a_session_is_taken_once_and_replaced() {
        let cache = cache(4);
        assert!((0..4).all(|number| put(&cache, number)));
        assert_eq!(cache.take(&id(1)), Some(session(1)));
        assert_eq!((cache.take(&id(1)), cache.get(&id(1))), (None, None));
        assert!(cache.put(id(2), b"another".to_vec()));
        assert_eq!(cache.get(&id(2)).as_deref(), Some(&b"another"[..]));
        // Now the newest: 0 and what was vacated go before it.
        put(&cache, 10);
        put(&cache, 11);
        assert_eq!(kept(&cache, 3..20), [3, 10, 11]);
        assert!(cache.get(&id(2)).is_some() && cache.get(&id(0)).is_none());
        for number in 100..1000 {
            put(&cache, number);
            assert!(cache.take(&id(number)).is_some());
        }
        assert_eq!(kept(&cache, 0..1000), [] as [u32; 0]);
        assert!(cache.shards[0].lock().expect("no panic").index.is_empty());
    }

    #[test]
    fn numbers_wrap_around() {
        let cache = cache(3);
        cache.shards[0].lock().expect("no panic").first = u32::MAX - 4;
        for number in 0..20 {
            put(&cache, number);
            assert_eq!(
                kept(&cache, 0..20),
                (number.saturating_sub(2)..=number).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn what_is_odd_is_not_kept() {
        let cache = cache(4);
        for odd in [vec![], vec![1; 31], vec![1; 33]] {
            assert!(!cache.put(odd.clone(), session(1)));
            assert_eq!((cache.get(&odd), cache.take(&odd)), (None, None));
        }
        assert!(!cache.put(id(1), vec![]) && !cache.put(id(1), vec![7; SESSION_BYTES_MAX + 1]));
        assert!(cache.put(id(1), vec![7; SESSION_BYTES_MAX]));
        let none = self::cache(0);
        assert!(cache.can_cache() && !none.can_cache());
        assert!(!put(&none, 1) && none.get(&id(1)).is_none());
    }

    #[test]
    fn workers_share_it() {
        let cache = cache(SESSIONS_MAX);
        thread::scope(|scope| {
            for worker in 0..4_u32 {
                let cache = &cache;
                scope.spawn(move || {
                    for number in (worker * 1000)..(worker + 1) * 1000 {
                        assert!(put(cache, number));
                        assert_eq!(cache.get(&id(number)), Some(session(number)));
                    }
                });
            }
        });
        assert_eq!(kept(&cache, 0..4000).len(), 4000);
    }

    #[test]
    fn a_session_takes_little() {
        assert_eq!(size_of::<Kept>(), 32);
    }
}
