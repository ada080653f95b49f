//! `otter import --watch`: publishes each build once it is written and quiet.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::event::EventKind;
use notify::{Event, RecursiveMode, Watcher};

use crate::beneath::Directory;
use crate::cli;
use crate::deploy::{self, Build, Looks, Place};
use crate::failure::{Context, Failure, Kind};
use crate::import::{Importer, Line};
use crate::output::Output;
use crate::upload;

/// Runs until the directory is gone or the process is stopped.
pub(crate) fn run(
    data: &Path,
    args: &cli::Import,
    root: &Directory,
    output: Output,
) -> Result<ExitCode, Failure> {
    let (sender, events) = channel();
    let config = notify::Config::default().with_follow_symlinks(false);
    let watching = || format!("cannot watch {}", args.dir.display());
    let mut watcher = notify::RecommendedWatcher::new(
        move |event| {
            // Its end is the end of the process.
            let _ = sender.send(event);
        },
        config,
    )
    .context(watching)?;
    watcher.watch(&args.dir, RecursiveMode::Recursive).context(watching)?;
    let mut watch = Watch {
        data,
        root,
        output,
        quiet: Duration::from_millis(args.quiet_ms),
        pending: BTreeMap::new(),
        settled: BTreeMap::new(),
        complained: false,
    };
    watch.mark_all()?;
    output.note(&format!("watching {}", args.dir.display()));
    loop {
        watch.listen(&events)?;
        watch.look()?;
    }
}

struct Watch<'a> {
    data: &'a Path,
    root: &'a Directory,
    output: Output,
    /// How long a build must stay as it is before it is taken.
    quiet: Duration,
    /// Places where something happened, and what was seen there last.
    pending: BTreeMap<Place, Option<Seen>>,
    /// What was published or complained of, so that it is not done again.
    settled: BTreeMap<Place, Found>,
    /// Was it said already that the store cannot be reached?
    complained: bool,
}

/// What was seen at a place, unchanged since a time.
struct Seen {
    what: Found,
    since: Instant,
}

/// The files of a build and how they look, or why it is none.
type Found = Result<Looks, String>;

impl Watch<'_> {
    /// Waits for something to happen, or for the next look.
    fn listen(&mut self, events: &Receiver<notify::Result<Event>>) -> Result<(), Failure> {
        let pause = if self.pending.is_empty() { RESCAN } else { self.quiet / LOOKS };
        match events.recv_timeout(pause) {
            Ok(event) => self.mark(event)?,
            Err(RecvTimeoutError::Timeout) if self.pending.is_empty() => self.mark_all()?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::failed("the directory cannot be watched any longer"));
            }
        }
        events.try_iter().try_for_each(|event| self.mark(event))
    }

    fn mark(&mut self, event: notify::Result<Event>) -> Result<(), Failure> {
        let Ok(event) = event else { return self.mark_all() };
        if matches!(event.kind, EventKind::Access(_)) {
            return Ok(());
        }
        for path in &event.paths {
            let Ok(within) = path.strip_prefix(self.root.path()) else { return self.mark_all() };
            let mut names = within.iter().map(OsStr::to_owned);
            match (names.next(), names.next()) {
                (Some(owner), Some(device)) => {
                    self.pending.entry(Place { owner, device }).or_default();
                }
                (None, _) | (_, None) => return self.mark_all(),
            }
        }
        if event.need_rescan() { self.mark_all() } else { Ok(()) }
    }

    /// Marks every place; what stands where none should be is left to `otter import`.
    fn mark_all(&mut self) -> Result<(), Failure> {
        for place in deploy::places(self.root)?.into_iter().flatten() {
            self.pending.entry(place).or_default();
        }
        Ok(())
    }

    /// Looks at every pending place and publishes what has been quiet for long enough.
    fn look(&mut self) -> Result<(), Failure> {
        // Opened for as long as there is something to do: a server may want the store.
        let mut importer = None;
        for (place, seen) in std::mem::take(&mut self.pending) {
            let found = deploy::read(self.root, &place);
            let what = match &found {
                Ok(None) => continue,
                Ok(Some(build)) => Ok(build.looks.clone()),
                Err(failure) => Err(failure.to_string()),
            };
            if self.settled.get(&place) == Some(&what) {
                continue;
            }
            let now = Instant::now();
            let since = seen.filter(|seen| seen.what == what).map_or(now, |seen| seen.since);
            let quiet = now.duration_since(since);
            let line = match found {
                _ if quiet < self.quiet => None,
                Ok(None) => continue,
                Ok(Some(build)) => self
                    .publish(&mut importer, &place, build, quiet)
                    .unwrap_or_else(|failure| Some(Line::failed(&place, &failure))),
                Err(failure) => Some(Line::failed(&place, &failure)),
            };
            let Some(line) = line else {
                self.pending.insert(place, Some(Seen { what, since }));
                continue;
            };
            line.print(self.output)?;
            self.settled.insert(place, what);
        }
        Ok(())
    }

    /// Publishes a quiet build. `None` if it must wait: it does not look finished, or the store
    /// cannot be reached.
    fn publish(
        &mut self,
        importer: &mut Option<Importer>,
        place: &Place,
        mut build: Build,
        quiet: Duration,
    ) -> Result<Option<Line>, Failure> {
        if let Some(stated) = &build.stated_sha256
            && quiet < self.quiet * DOUBT
            && *stated != upload::sha256(&mut build.content)?
        {
            // Perhaps a writer that pauses between the two files.
            return Ok(None);
        }
        let opened = match importer.take() {
            Some(opened) => opened,
            None => match Importer::open(self.data, self.output) {
                Ok(opened) => opened,
                Err(failure) => return self.wait_for_store(failure),
            },
        };
        match importer.insert(opened).publish(self.root, place, build) {
            Err(failure) if failure.kind == Kind::Unavailable => self.wait_for_store(failure),
            other => {
                self.complained = false;
                other
            }
        }
    }

    fn wait_for_store(&mut self, failure: Failure) -> Result<Option<Line>, Failure> {
        if !matches!(failure.kind, Kind::Conflict | Kind::Unavailable) {
            return Err(failure);
        }
        if !self.complained {
            self.output.note(&format!("waiting: {failure}"));
            self.complained = true;
        }
        Ok(None)
    }
}

/// How often a pending place is looked at while it must be quiet.
const LOOKS: u32 = 4;
/// How many times as long a build must be quiet whose envelope states another digest.
const DOUBT: u32 = 10;
/// How long without events until all is looked at again, in case one was lost.
const RESCAN: Duration = Duration::from_secs(60);
