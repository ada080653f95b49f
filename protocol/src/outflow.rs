//! Image bytes on their way out: how many are admitted and have not left, and how fast they leave.
//!
//! A line that thousands of downloads share gives each of them so little that all run into their
//! time limits, and nobody ever finishes. So a download begins only while what is ahead of it
//! leaves soon enough at the rate of the last seconds. Devices that are slow by themselves raise
//! that rate together and are all let in; a line that is full is shared by as many as it can serve.
//!
//! Where little leaves, nothing says whether the line is full or its devices are slow. The floor of
//! the settings does: a line that carries far less than that is not full, and whoever has been on
//! it for a while is slow by himself. Only those who came since are counted then.
//!
//! Here is no clock: time is what it is told, in whole seconds from the first time on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::Config;
use crate::now::Now;

/// What all connections of one line know of it. A clone of a [`Config`] shares it: threads have
/// settings of their own, and one line.
#[derive(Clone, Default)]
pub(crate) struct Outflow(Arc<Mutex<Flow>>);

/// A download's part of what is admitted. Whatever becomes of the download, its bytes are given
/// back with this.
pub(crate) struct Share {
    outflow: Outflow,
    bytes_left: u64,
    /// The second in which it began.
    since: u64,
}

#[derive(Default)]
struct Flow {
    /// Where seconds are counted from: the first time that was told.
    origin: Option<Instant>,
    /// What is admitted and has not left.
    all: Load,
    /// How often a download was put off.
    put_off: u64,
    /// The last seconds, each in its place: `second % SECONDS`.
    seconds: [Second; SECONDS],
    /// The newest of them.
    newest: u64,
}

/// Downloads, and the bytes that they have before them.
#[derive(Clone, Copy, Default)]
struct Load {
    bytes: u64,
    downloads: u64,
}

#[derive(Clone, Copy, Default)]
struct Second {
    /// What began in it, and has not left.
    begun: Load,
    /// Images that were offered.
    offered: Load,
    /// Bytes that left.
    sent: u64,
    /// Those of them that had to wait for room in their socket.
    paced: u64,
}

/// So many bytes in so many milliseconds.
#[derive(Clone, Copy)]
struct Rate {
    bytes: u64,
    over_ms: u128,
}

impl Outflow {
    /// Lets a download of so many bytes begin.
    ///
    /// # Errors
    /// How many seconds it should wait: the more is ahead the more, and each time another number,
    /// so that those who are put off together do not come back together.
    pub(crate) fn admit(&self, bytes: u64, now: Now, config: &Config) -> Result<Share, u32> {
        let mut flow = self.lock();
        flow.advance(now);
        if flow.has_room(config) {
            return Ok(self.share(flow, bytes));
        }
        let number = flow.put_off;
        flow.put_off += 1;
        let over_s = flow.drain_s().min(config.transfer_backlog.as_secs());
        let over_s = u32::try_from(over_s).unwrap_or(u32::MAX).max(config.retry_after_s);
        Err(spread(config.retry_after_s, over_s, number))
    }

    /// Takes so many bytes in, however many are ahead.
    pub(crate) fn take(&self, bytes: u64) -> Share {
        self.share(self.lock(), bytes)
    }

    /// May an image of so many bytes be offered? From half of the backlog on it may not: the
    /// devices ask again at their next check-ins, which spreads them. What was offered a moment ago
    /// counts as if it were on its way.
    pub(crate) fn offers(&self, bytes: u64, now: Now, config: &Config) -> bool {
        let mut flow = self.lock();
        flow.advance(now);
        let may = flow.has_room_for_offers(config);
        if may {
            flow.second().offered.add(bytes);
        }
        may
    }

    /// Bytes that are admitted and have not left, and downloads.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn admitted(&self) -> (u64, u64) {
        let flow = self.lock();
        (flow.all.bytes, flow.all.downloads)
    }

    fn share(&self, mut flow: std::sync::MutexGuard<'_, Flow>, bytes: u64) -> Share {
        flow.all.add(bytes);
        flow.second().begun.add(bytes);
        Share { outflow: self.clone(), bytes_left: bytes, since: flow.newest }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Flow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// The download is of so many bytes after all.
    pub(crate) fn resize(&mut self, bytes: u64) {
        let resize = |load: &mut Load| {
            load.bytes = load.bytes.saturating_sub(self.bytes_left).saturating_add(bytes);
        };
        self.outflow.lock().each_load(self.since, resize);
        self.bytes_left = bytes;
    }

    /// So many bytes of the download have not left yet. `is_paced`: those that have since were
    /// waiting for room in their socket. What a socket takes at once lies in its buffer, and says
    /// nothing of the line.
    pub(crate) fn left(&mut self, bytes_left: u64, now: Now, is_paced: bool) {
        let sent = self.bytes_left.saturating_sub(bytes_left);
        if sent == 0 {
            return;
        }
        let mut flow = self.outflow.lock();
        flow.advance(now);
        flow.each_load(self.since, |load| load.bytes = load.bytes.saturating_sub(sent));
        let second = flow.second();
        second.sent += sent;
        second.paced += if is_paced { sent } else { 0 };
        drop(flow);
        self.bytes_left = bytes_left;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let end = |load: &mut Load| {
            load.bytes = load.bytes.saturating_sub(self.bytes_left);
            load.downloads = load.downloads.saturating_sub(1);
        };
        self.outflow.lock().each_load(self.since, end);
    }
}

impl Flow {
    /// Moves on to the second of `now`; seconds that are over for long are forgotten. Threads may
    /// be a moment apart: what has been stays.
    fn advance(&mut self, now: Now) {
        let origin = *self.origin.get_or_insert(now.instant);
        let second = now.instant.saturating_duration_since(origin).as_secs();
        let passed = second.saturating_sub(self.newest).min(SECONDS as u64);
        for fresh in 0..passed {
            self.seconds[(second - fresh) as usize % SECONDS] = Second::default();
        }
        self.newest = self.newest.max(second);
    }

    fn second(&mut self) -> &mut Second {
        &mut self.seconds[self.newest as usize % SECONDS]
    }

    /// Changes whatever a share that began in the second `since` counts in.
    fn each_load(&mut self, since: u64, change: impl Fn(&mut Load)) {
        change(&mut self.all);
        if self.newest - since < SECONDS as u64 {
            change(&mut self.seconds[since as usize % SECONDS].begun);
        }
    }

    /// What counts of the last seconds, over as many as passed from the first one that does.
    fn rate(&self, what: impl Fn(&Second) -> u64) -> Rate {
        let (mut sum, mut seconds) = (0_u64, 1);
        for age in 0..(SECONDS as u64).min(self.newest + 1) {
            let counted = what(&self.seconds[(self.newest - age) as usize % SECONDS]);
            if counted > 0 {
                (sum, seconds) = (sum.saturating_add(counted), age + 1);
            }
        }
        Rate { bytes: sum, over_ms: u128::from(seconds) * 1000 }
    }

    /// The loads of the last seconds together.
    fn recent(&self, what: impl Fn(&Second) -> Load) -> Load {
        self.seconds.iter().map(what).fold(Load::default(), Load::and)
    }

    /// May another download begin?
    fn has_room(&self, config: &Config) -> bool {
        let recent = self.recent(|second| second.begun);
        self.carries(self.all, recent, |second| second.paced, config)
    }

    /// What left at once counts here: it costs little to offer too much, and the devices of a fast
    /// line should not wait.
    fn has_room_for_offers(&self, config: &Config) -> bool {
        let offered = self.recent(|second| second.offered);
        let [all, recent] = [self.all, self.recent(|second| second.begun)]
            .map(|load| load.and(offered))
            .map(|coming| coming.and(coming));
        self.carries(all, recent, |second| second.sent, config)
    }

    /// Does the line carry all that is on it, at the rate of what counts? Below its floor it does
    /// in any case. If so little left in all that it cannot be full, only those count who may
    /// still raise that.
    fn carries(
        &self,
        all: Load,
        recent: Load,
        what: impl Fn(&Second) -> u64,
        config: &Config,
    ) -> bool {
        let floor = Rate { bytes: config.transfer_backlog_bytes_min, over_ms: backlog_ms(config) };
        let is_idle = self.rate(|second| second.sent).is_below(floor.part(IDLE_PART));
        all.fits(self.rate(what), config)
            || all.fits(floor, config)
            || is_idle && recent.fits(floor, config)
    }

    /// How many seconds what is ahead takes to leave; 0 where nothing says how fast that is.
    fn drain_s(&self) -> u64 {
        let rate = self.rate(|second| second.paced);
        let drain_ms = u128::from(self.all.bytes) * rate.over_ms;
        let drain_s = drain_ms.checked_div(u128::from(rate.bytes) * 1000).unwrap_or_default();
        u64::try_from(drain_s).unwrap_or(u64::MAX)
    }
}

impl Load {
    fn add(&mut self, bytes: u64) {
        *self = self.and(Self { bytes, downloads: 1 });
    }

    fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            downloads: self.downloads.saturating_add(other.downloads),
        }
    }

    /// Would it leave within the backlog at this rate, and would each download keep well above the
    /// least rate at which it is not cut off?
    fn fits(self, rate: Rate, config: &Config) -> bool {
        let (bytes, downloads) = (u128::from(self.bytes), u128::from(self.downloads));
        let least = u128::from(config.send_window_bytes_min) * SPEED_MARGIN;
        rate.gives(bytes, backlog_ms(config))
            && rate.gives(downloads.saturating_mul(least), config.send_window.as_millis())
    }
}

impl Rate {
    /// Are so many bytes gone after so long?
    fn gives(self, bytes: u128, within_ms: u128) -> bool {
        bytes.saturating_mul(self.over_ms) <= u128::from(self.bytes).saturating_mul(within_ms)
    }

    fn part(self, part: u128) -> Self {
        Self { over_ms: self.over_ms.saturating_mul(part), ..self }
    }

    fn is_below(self, other: Self) -> bool {
        !self.gives(u128::from(other.bytes), other.over_ms)
    }
}

fn backlog_ms(config: &Config) -> u128 {
    config.transfer_backlog.as_millis().max(1)
}

/// Seconds from `base` to nearly `over` more, another number each time.
pub(crate) fn spread(base: u32, over: u32, number: u64) -> u32 {
    base.saturating_add((number % u64::from(over.max(1))) as u32)
}

impl std::fmt::Debug for Outflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outflow")
    }
}

/// How long a rate is remembered: longer than a pause of a line, shorter than anybody's patience.
const SECONDS: usize = 16;
/// A line is not shared evenly: on the average each download gets so many times the least rate.
const SPEED_MARGIN: u128 = 2;
/// A line that carries less than this part of its floor is not full. Not half of it: nobody knows
/// his line that well.
const IDLE_PART: u128 = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A floor of 10 bytes/s, which is less than one download needs; least rate 10 bytes/s.
    fn config() -> Config {
        Config {
            transfer_backlog: Duration::from_secs(100),
            transfer_backlog_bytes_min: 1000,
            send_window: Duration::from_secs(30),
            send_window_bytes_min: 300,
            ..Config::default()
        }
    }

    /// Times with one beginning.
    #[expect(clippy::disallowed_methods, reason = "any beginning will do")]
    fn clock() -> impl Fn(u64) -> Now {
        let base = Instant::now();
        move |second| Now { instant: base + Duration::from_secs(second), unix: 0 }
    }

    fn is_nothing_left(config: &Config) -> bool {
        config.outflow.admitted() == (0, 0)
    }

    #[test]
    fn where_no_rate_is_known_the_floor_counts() {
        let (config, at) = (config(), clock());
        let first = config.outflow.admit(5000, at(0), &config).expect("nothing is ahead");
        assert_eq!(config.outflow.admit(1, at(0), &config).err(), Some(10));
        assert_eq!(config.outflow.admit(1, at(15), &config).err(), Some(11));
        drop(first);
        assert!(config.outflow.admit(1, at(15), &config).is_ok());
        assert!(is_nothing_left(&config));
    }

    #[test]
    fn the_floor_is_a_rate() {
        let at = clock();
        // 10,000 bytes in 100 s: 100 bytes/s.
        let config = Config { transfer_backlog_bytes_min: 10_000, ..config() };
        let admitted = |bytes| {
            let config = config.on_another_line();
            let all = (0..99).map_while(|_| config.outflow.admit(bytes, at(0), &config).ok());
            all.collect::<Vec<Share>>().len()
        };
        assert_eq!(admitted(1), 6, "5 of them get twice the least rate");
        assert_eq!(admitted(4000), 3, "until 10,000 bytes are ahead");
    }

    /// 100 bytes/s is the floor, and less than 25 do not fill it.
    #[test]
    fn who_is_slow_for_a_while_keeps_nobody_out() {
        let (config, at) = (config(), clock());
        let config = Config { transfer_backlog_bytes_min: 10_000, ..config };
        let mut slow = config.outflow.take(1_000_000);
        let mut read = |second, rate| {
            let before = slow.bytes_left;
            slow.left(before - rate, at(second), true);
        };
        (0..=15).for_each(|second| read(second, 24));
        assert!(config.outflow.admit(1, at(15), &config).is_err(), "it has just come");
        read(16, 24);
        let fresh = config.outflow.admit(11_000, at(16), &config).expect("it has been there");
        assert!(config.outflow.admit(1, at(16), &config).is_err(), "11,000 bytes have just come");
        drop(fresh);
        assert!(config.outflow.admit(1, at(16), &config).is_ok());
        (17..=32).for_each(|second| read(second, 25));
        assert!(config.outflow.admit(1, at(32), &config).is_err(), "the line may be full");
    }

    #[test]
    fn what_the_floor_carries_is_let_in_at_any_rate() {
        let (config, at) = (config(), clock());
        let config = Config { transfer_backlog_bytes_min: 10_000, ..config };
        let mut first = config.outflow.take(10_000);
        first.left(9950, at(0), true);
        let second = config.outflow.admit(51, at(0), &config).expect("50 bytes/s, 9950 ahead");
        assert!(config.outflow.admit(1, at(0), &config).is_err(), "10,001 ahead");
        drop(second);
        assert!(config.outflow.admit(1, at(0), &config).is_ok());
    }

    /// Bytes that a socket takes at once say nothing of how fast the line is, but that it is used.
    #[test]
    fn a_line_that_is_used_is_not_idle() {
        let (config, at) = (config(), clock());
        let config = Config { transfer_backlog_bytes_min: 10_000, ..config };
        let mut first = config.outflow.take(1_000_000);
        for second in 0..=32 {
            first.left(1_000_000 - 25 * (second + 1), at(second), false);
        }
        assert!(config.outflow.admit(1, at(32), &config).is_err());
    }

    /// Of those who have been there for a while nobody counts.
    #[test]
    fn who_is_slow_for_a_while_takes_no_offers_away() {
        let (config, at) = (config(), clock());
        let config = Config { send_window_bytes_min: 0, ..config };
        let _slow = config.outflow.admit(1_000_000, at(0), &config).expect("nothing is ahead");
        assert!(!config.outflow.offers(1, at(15), &config));
        assert!(config.outflow.offers(1, at(16), &config));
    }

    #[test]
    fn what_a_socket_takes_at_once_is_no_rate() {
        let (config, at) = (config(), clock());
        let mut first = config.outflow.admit(5000, at(0), &config).expect("nothing is ahead");
        first.left(1000, at(0), false);
        assert!(config.outflow.admit(1, at(0), &config).is_err());
        first.left(900, at(1), true);
        assert!(config.outflow.admit(1, at(1), &config).is_ok(), "100 bytes/s, 900 ahead");
    }

    /// At 100 bytes/s 10,000 bytes leave within 100 s, and 5 downloads get twice the least rate.
    #[test]
    fn as_much_is_admitted_as_leaves_in_time() {
        let (config, at) = (config(), clock());
        let mut first = config.outflow.take(20_000);
        for second in 0..=15 {
            first.left(20_000 - 100 * (second + 1), at(second), true);
        }
        assert!(config.outflow.admit(1, at(15), &config).is_err(), "18,400 bytes are ahead");
        first.left(10_000, at(15), false);
        let second = config.outflow.admit(10, at(15), &config).expect("10,000 bytes are ahead");
        assert!(config.outflow.admit(1, at(15), &config).is_err(), "10,010 bytes are ahead");
        drop((first, second));
        let more: Vec<Share> =
            (0..9).filter_map(|_| config.outflow.admit(1, at(15), &config).ok()).collect();
        assert_eq!(more.len(), 6, "beside more than 5 nobody is let in");
        drop(more);
        assert!(is_nothing_left(&config));
    }

    #[test]
    fn a_rate_is_forgotten() {
        let (config, at) = (config(), clock());
        let mut first = config.outflow.take(20_000);
        first.left(10_000, at(0), true);
        let _second = config.outflow.admit(10_000, at(15), &config).expect("625 bytes/s");
        assert!(config.outflow.admit(1, at(16), &config).is_err());
        assert!(config.outflow.admit(1, at(1_000_000), &config).is_ok(), "both are slow");
    }

    #[test]
    fn who_is_put_off_is_told_the_more_the_more_is_ahead() {
        let (config, at) = (config(), clock());
        let mut first = config.outflow.take(1_000_000);
        first.left(999_900, at(0), true);
        let told = |count: usize| {
            let told = (0..count).map(|_| config.outflow.admit(1, at(0), &config).err());
            told.map(|wait| wait.expect("full")).collect::<Vec<_>>()
        };
        assert_eq!(told(100), (10..110).collect::<Vec<_>>(), "up to the backlog more");
        assert_eq!(told(1), [10]);
    }

    #[test]
    fn offers_end_at_half_of_the_floor_and_count_for_a_while() {
        let (config, at) = (config(), clock());
        let config = Config { send_window_bytes_min: 0, ..config };
        assert!(config.outflow.offers(499, at(0), &config));
        assert!(config.outflow.offers(499, at(0), &config));
        assert!(!config.outflow.offers(1, at(0), &config), "998 bytes are offered");
        assert!(config.outflow.offers(1, at(16), &config), "nobody came");
        let _taken = config.outflow.take(500);
        assert!(!config.outflow.offers(1, at(16), &config), "what is ahead counts, too");
    }

    #[test]
    fn offers_end_where_each_would_get_too_little() {
        let (config, at) = (config(), clock());
        let mut first = config.outflow.take(2000);
        first.left(1900, at(0), false);
        let offered = (0..9).take_while(|_| config.outflow.offers(1, at(0), &config)).count();
        assert_eq!(offered, 2, "100 bytes/s are enough for 5 downloads, and offered is for half");
    }

    #[test]
    fn a_floor_without_end_admits_all() {
        let config = Config { transfer_backlog_bytes_min: u64::MAX, ..config() };
        let at = clock();
        let all: Vec<Share> =
            (0..100).filter_map(|_| config.outflow.admit(1 << 40, at(0), &config).ok()).collect();
        assert_eq!(all.len(), 100);
        assert!(config.outflow.offers(u64::MAX, at(0), &config));
    }

    #[test]
    fn sizes_and_times_without_sense_do_no_harm() {
        let at = clock();
        let (now, before) = (at(9), at(0));
        let config = Config {
            transfer_backlog: Duration::MAX,
            transfer_backlog_bytes_min: 0,
            send_window: Duration::ZERO,
            retry_after_s: u32::MAX,
            ..Config::default()
        };
        let mut first = config.outflow.admit(u64::MAX, now, &config).expect("nothing is ahead");
        first.resize(7);
        first.left(3, before, true);
        first.left(5, before, true);
        assert_eq!(config.outflow.admit(u64::MAX, before, &config).err(), Some(u32::MAX));
        drop(first);
        assert!(is_nothing_left(&config));
    }

    #[test]
    fn clones_of_a_config_share_their_line_and_others_do_not() {
        let (config, at) = (config(), clock());
        let (clone, other) = (config.clone(), config.on_another_line());
        let _first = config.outflow.take(5000);
        assert!(clone.outflow.admit(1, at(0), &clone).is_err());
        assert!(other.outflow.admit(1, at(0), &other).is_ok());
    }
}
