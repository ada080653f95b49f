//! `otter store copy`: all facts of one store, and their images, into another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use otter_store::{Fact, Operator, OperatorError, Staged};
use serde::Serialize;

use crate::cli::StoreCopy;
use crate::config::Settings;
use crate::failure::Failure;
use crate::output::Output;
use crate::socket;
use crate::store::{AnyStore, StoreChoice};

pub(crate) fn run(data: &Path, args: &StoreCopy, output: Output) -> Result<(), Failure> {
    let from = Side::named(&args.from, data)?;
    let to = Side::named(&args.to, args.to_data.as_deref().unwrap_or(data))?;
    from.must_exist()?;
    if from.is(&to) {
        return Err(Failure::usage("FROM and TO are the same store"));
    }
    if from.in_redis() {
        output.note(
            "warning: what servers on other machines change meanwhile may be missed; stop them all",
        );
    }
    let (from, to) = (from.open(AnyStore::open)?, to.open(AnyStore::open_to_fill)?);
    for warning in to.warnings() {
        output.note(&format!("warning: {warning}"));
    }
    let copied = copy(&from.operator(), &to.operator(), output);
    from.close();
    to.close();
    let rows = copied?;
    output.list(&rows, &["WHAT", "FROM", "TO", "SAME"], |row| {
        let same = if row.same { "yes" } else { "no" };
        vec![row.what.to_owned(), row.from.to_string(), row.to.to_string(), same.to_owned()]
    })?;
    let others: Vec<_> = rows.iter().filter(|row| !row.same).map(|row| row.what).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("the two are not the same: {}", others.join(", ")))
        .hint("stop every server that uses one of them, empty TO, and copy again"))
}

fn copy(from: &Operator, to: &Operator, output: Output) -> Result<Vec<Row>, Failure> {
    if to.begin_copy()? {
        output.note("going on with a copy that broke off");
    }
    let images = Images::copy(from, to, output)?;
    let devices = from.stats().devices;
    transfer(from, to, &progress(devices, "copying", output))?;
    let (here, there) = tallies(from, to, &progress(2 * devices, "comparing", output))?;
    let rows = rows(&here, &there, &images);
    // Until they are released they keep their files.
    drop(images);
    if rows.iter().all(|row| row.same) {
        to.finish_copy()?;
    }
    Ok(rows)
}

/// Reads one store while the other writes.
fn transfer(from: &Operator, to: &Operator, bar: &ProgressBar) -> Result<(), OperatorError> {
    let (pages, received) = mpsc::sync_channel::<Vec<Fact>>(PAGES_WAITING_MAX);
    let copied = thread::scope(|scope| {
        let writer = scope.spawn(move || {
            received.into_iter().try_for_each(|facts| {
                let devices = devices_in(&facts);
                to.import(facts)?;
                bar.inc(devices);
                Ok(())
            })
        });
        let read = from.export(&mut |facts| pages.send(facts).map_err(|_| broken()));
        drop(pages);
        // What the writer says comes first: if it ended early, that is why reading did.
        writer.join().unwrap_or_else(|_| Err(broken())).and(read)
    });
    bar.finish_and_clear();
    copied
}

/// Reads both at the same time.
fn tallies(
    from: &Operator,
    to: &Operator,
    bar: &ProgressBar,
) -> Result<(Tally, Tally), OperatorError> {
    let tallies = thread::scope(|scope| {
        let other = scope.spawn(|| Tally::of(to, bar));
        let one = Tally::of(from, bar)?;
        Ok((one, other.join().unwrap_or_else(|_| Err(broken()))?))
    });
    bar.finish_and_clear();
    tallies
}

fn broken() -> OperatorError {
    OperatorError::Invalid { reason: "a thread of the copy broke off; try again".to_owned() }
}

/// One of the two stores.
struct Side {
    data: PathBuf,
    settings: Settings,
}

impl Side {
    fn named(text: &str, data: &Path) -> Result<Self, Failure> {
        let (data, store) = match text {
            "configured" => (data, None),
            url if url.contains("://") => (data, Some(StoreChoice::Redis(url.to_owned()))),
            directory => (Path::new(directory), Some(StoreChoice::Embedded)),
        };
        let mut settings = Settings::for_command(data)?;
        if let Some(store) = store {
            settings.store = store;
        }
        if settings.store == StoreChoice::Memory {
            let error = "a store in memory is gone with its server, and cannot be copied";
            return Err(Failure::usage(error).hint("OTTER_STORE or otter.toml names it"));
        }
        Ok(Self { data: data.to_owned(), settings })
    }

    fn in_redis(&self) -> bool {
        self.settings.store != StoreChoice::Embedded
    }

    fn is(&self, other: &Self) -> bool {
        let place = |side: &Self| side.data.canonicalize().ok();
        self.settings.store == other.settings.store
            && (self.in_redis() || (place(self).is_some() && place(self) == place(other)))
    }

    fn must_exist(&self) -> Result<(), Failure> {
        if self.in_redis() || self.data.join("otter.db").exists() {
            return Ok(());
        }
        Err(Failure::not_found(format!("there is no store in {}", self.data.display()))
            .hint("name the data directory of the server, or a URL such as redis://127.0.0.1:6379"))
    }

    fn open<E: Into<Failure>>(
        &self,
        open: impl FnOnce(&Path, &Settings) -> Result<AnyStore, E>,
    ) -> Result<AnyStore, Failure> {
        // An embedded store is locked by its server, and says so.
        if self.in_redis() && socket::answers(&self.data) {
            return Err(Failure::conflict(format!("a server runs on {}", self.data.display()))
                .hint("stop it, and all others that use one of the two stores"));
        }
        open(&self.data, &self.settings).map_err(Into::into)
    }
}

/// The images of all releases.
struct Images {
    from: u64,
    to: u64,
    /// Copies that no release may need yet.
    _staged: Vec<Staged>,
}

impl Images {
    /// Copies those that are not there. Each is read and hashed on both sides.
    fn copy(from: &Operator, to: &Operator, output: Output) -> Result<Self, Failure> {
        let mut names = BTreeMap::new();
        for row in from.releases(None)? {
            let offered = names.entry(row.offer.sha256).or_insert(false);
            *offered |= row.withdrawn.is_none();
        }
        let bar = progress(names.len() as u64, "images", output);
        let nowhere_else = from.origins().is_empty();
        let mut images = Self { from: 0, to: 0, _staged: Vec::new() };
        for (name, is_offered) in names {
            bar.inc(1);
            let Some(image) = from.image(&name) else {
                if is_offered {
                    // Then the copy is not whole.
                    images.from += u64::from(nowhere_else);
                    output.note(&format!(
                        "warning: image {} is not in the directory of FROM, or damaged; only \
                         servers that fetch it from an origin can give it",
                        hex(&name)
                    ));
                }
                continue;
            };
            images.from += 1;
            if to.image(&name).is_none() {
                let bytes: &[u8] = image.as_ref();
                let staged = to.stage(&mut &*bytes, bytes.len() as u64)?;
                if staged.sha256() != name {
                    continue;
                }
                images._staged.push(staged);
            }
            images.to += 1;
        }
        bar.finish_and_clear();
        Ok(images)
    }
}

/// What a store has.
#[derive(Default)]
struct Tally {
    owners: Count,
    keys: Count,
    devices: Count,
    releases: Count,
    /// When each token ends, and its fingerprint.
    tokens: Vec<(u64, u128)>,
}

/// How many there are, and the sum of their fingerprints.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Count(u64, u128);

impl Tally {
    fn of(store: &Operator, bar: &ProgressBar) -> Result<Self, OperatorError> {
        let mut tally = Self::default();
        store.export(&mut |facts| {
            bar.inc(devices_in(&facts));
            facts.iter().for_each(|fact| tally.add(fact));
            Ok(())
        })?;
        Ok(tally)
    }

    fn add(&mut self, fact: &Fact) {
        let fingerprint = fact.fingerprint();
        match fact {
            Fact::Owner { .. } => self.owners.add(1, fingerprint),
            Fact::Keys { keys, .. } => self.keys.add(keys.len() as u64, fingerprint),
            Fact::Release { .. } => self.releases.add(1, fingerprint),
            Fact::Device(_) => self.devices.add(1, fingerprint),
            Fact::Token(token) => self.tokens.push((token.end_ms(), fingerprint)),
        }
    }

    /// The tokens that end later than that.
    fn tokens_beyond(&self, ms: u64) -> Count {
        let mut count = Count::default();
        let later = self.tokens.iter().filter(|(end_ms, _)| *end_ms > ms);
        later.for_each(|(_, fingerprint)| count.add(1, *fingerprint));
        count
    }
}

impl Count {
    fn add(&mut self, number: u64, fingerprint: u128) {
        self.0 += number;
        self.1 = self.1.wrapping_add(fingerprint);
    }
}

/// One line of what is printed.
#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    from: u64,
    to: u64,
    same: bool,
}

fn rows(from: &Tally, to: &Tally, images: &Images) -> Vec<Row> {
    // Tokens end meanwhile, and each store looks at a clock of its own.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let soon_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX) + CLOCKS_DIFFER_MS;
    let row = |what, from: Count, to: Count| Row { what, from: from.0, to: to.0, same: from == to };
    vec![
        row("owners", from.owners, to.owners),
        row("keys", from.keys, to.keys),
        row("devices", from.devices, to.devices),
        row("releases", from.releases, to.releases),
        row("tokens", from.tokens_beyond(soon_ms), to.tokens_beyond(soon_ms)),
        row("images", Count(images.from, 0), Count(images.to, 0)),
    ]
}

fn devices_in(facts: &[Fact]) -> u64 {
    facts.iter().filter(|fact| matches!(fact, Fact::Device(_))).count() as u64
}

fn progress(length: u64, doing: &'static str, output: Output) -> ProgressBar {
    if !output.draws() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:9} {bar:40} {pos}/{len} {per_sec} {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(doing)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Pages that are read ahead: about a megabyte each.
const PAGES_WAITING_MAX: usize = 4;
/// Tokens that end within this time are not compared.
const CLOCKS_DIFFER_MS: u64 = 60_000;
