//! The directory of images, `<sha256, 64 hex digits>` each, and those of them that are open.
//!
//! A file is opened without following links, must be regular and exactly as long as its release
//! says, and stays open for the next request: one file, one mapping, however many devices fetch
//! it. Its identity is compared before it is given out again and before a token is claimed. A file
//! whose identity changed is trusted again only after its bytes were hashed; a transfer that holds
//! it in its former state cannot be completed.
//!
//! Lock order: the tables before the images, never the other way round.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use otter_protocol::id::hex_text;
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::OpenError;
use crate::image::{Identity, Image, WeakImage};

/// The SHA-256 that names an image.
pub(crate) type ImageName = [u8; 32];

/// The directory of images, shared by all threads of a store.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) directory: OwnedFd,
    pub(crate) incoming: OwnedFd,
    used: Used,
    open_max: usize,
    known: Mutex<Known>,
    refused_total: AtomicU64,
}

impl Images {
    /// Opens a directory of images, creates it if need be, and removes what was interrupted while
    /// it was copied in.
    ///
    /// # Errors
    /// [`OpenError::Directory`] if it cannot be used.
    pub(crate) fn open(path: &Path, used: Used, open_max: usize) -> Result<Self, OpenError> {
        let incoming = path.join(INCOMING);
        create_directory(&incoming)?;
        let age_min = match used {
            Used::Alone => Duration::ZERO,
            Used::Unknown => ABANDONED_AFTER,
        };
        remove_files_in(&incoming, age_min).map_err(at(&incoming))?;
        Ok(Self {
            directory: open_directory(path)?,
            incoming: open_directory(&incoming)?,
            used,
            open_max,
            known: Mutex::default(),
            refused_total: AtomicU64::new(0),
        })
    }

    /// The image of this name; `None` if it is not there or not what was published. What another
    /// server put there meanwhile is seen.
    pub(crate) fn image(&self, name: &ImageName, size: u64) -> Option<Image> {
        let image = match self.open_already(name) {
            Ok(image) => Some(image),
            Err(doubt) => self.open_again(name, size, doubt),
        };
        image.filter(|image| image.len() == size)
    }

    /// The image of this name, however long, if its bytes are what the name says. Reads them all.
    pub(crate) fn verified(&self, name: &ImageName) -> Option<Image> {
        let image = self.open_file(name).and_then(Image::map).ok()?;
        hashes_to(&image, name).then_some(image)
    }

    /// Is the image there, and is every opened state of it that a transfer may hold unchanged?
    pub(crate) fn intact(&self, name: &ImageName, size: u64) -> bool {
        let Some(_image) = self.image(name, size) else {
            self.refused();
            return false;
        };
        self.known().entries.get(name).is_none_or(|known| {
            known.living.iter().filter_map(WeakImage::upgrade).all(|image| image.unchanged())
        })
    }

    /// Keeps a file from being removed until [`Images::let_go`].
    pub(crate) fn hold(&self, name: &ImageName) {
        self.known().entries.entry(*name).or_default().holds += 1;
    }

    /// The counterpart of [`Images::hold`]; removes the file if nobody else holds it and no
    /// release or token needs it.
    pub(crate) fn let_go(&self, name: &ImageName, needed: bool) {
        let mut known = self.known();
        if let Some(entry) = known.entries.get_mut(name) {
            entry.holds = entry.holds.saturating_sub(1);
        }
        self.remove_unless(name, needed, known);
    }

    /// Removes the file of an image that no release or token needs, unless it is held.
    pub(crate) fn remove(&self, name: &ImageName) {
        let known = self.known();
        self.remove_unless(name, false, known);
    }

    /// An image was asked for and could not be given.
    pub(crate) fn refused(&self) {
        self.refused_total.fetch_add(1, Ordering::Relaxed);
    }

    /// How often an image was asked for and could not be given, since the store was opened.
    pub(crate) fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// An image that is open and unchanged, or what is held against opening it.
    fn open_already(&self, name: &ImageName) -> Result<Image, Doubt> {
        let mut known = self.known();
        let now = known.next_use();
        let Some(entry) = known.entries.get_mut(name) else { return Err(Doubt::None) };
        let image = entry.kept.clone().or_else(|| entry.living.last()?.upgrade());
        let Some(image) = image else { return Err(entry.doubt) };
        if image.unchanged() {
            entry.used = now;
            return Ok(image);
        }
        entry.kept = None;
        entry.doubt = Doubt::Changed;
        Err(Doubt::Changed)
    }

    fn open_again(&self, name: &ImageName, size: u64, doubt: Doubt) -> Option<Image> {
        let image = self.open_file(name).and_then(Image::map).ok()?;
        let good = match doubt {
            Doubt::None => image.len() == size,
            Doubt::Refused(identity) if identity == image.identity() => false,
            Doubt::Changed | Doubt::Refused(_) => image.len() == size && hashes_to(&image, name),
        };
        let mut known = self.known();
        let now = known.next_use();
        let entry = known.entries.entry(*name).or_default();
        entry.living.retain(|weak| weak.upgrade().is_some());
        if !good {
            entry.doubt = Doubt::Refused(image.identity());
            return None;
        }
        entry.doubt = Doubt::None;
        entry.living.push(image.downgrade());
        entry.kept = Some(image.clone());
        entry.used = now;
        known.close_beyond(self.open_max);
        Some(image)
    }

    /// Never follows a link, and never waits for the other end of a pipe.
    fn open_file(&self, name: &ImageName) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.directory, file_name(name), flags, Mode::empty())?;
        Ok(File::from(fd))
    }

    /// Called with the lock held, so that nobody can begin to hold the file meanwhile.
    fn remove_unless(&self, name: &ImageName, needed: bool, mut known: MutexGuard<'_, Known>) {
        let Entry::Occupied(mut entry) = known.entries.entry(*name) else {
            if !needed {
                self.unlink(name);
            }
            return;
        };
        if entry.get().holds > 0 {
            return;
        }
        if !needed {
            entry.get_mut().kept = None;
            self.unlink(name);
        }
        if entry.get().idle() {
            entry.remove();
        }
    }

    /// A file that cannot be removed is only a waste of room, so a failure has no consequence.
    fn unlink(&self, name: &ImageName) {
        if self.used != Used::Alone {
            return;
        }
        let _ = rustix::fs::unlinkat(&self.directory, file_name(name), AtFlags::empty());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who uses a directory of images. Only a store that knows all releases that its images are for may
/// remove one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// This store alone: what no release and no token of it needs is removed.
    Alone,
    /// Perhaps others, too, or for facts that others know: nothing is removed, and what lies in
    /// `.incoming` may still be on its way.
    Unknown,
}

/// Creates a directory of ours and those above it, readable by nobody else.
pub(crate) fn create_directory(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// The file name of an image.
pub(crate) fn file_name(name: &ImageName) -> String {
    let digits: [u8; 64] = hex_text(name);
    String::from_utf8_lossy(&digits).into_owned()
}

/// Turns an error of the system into one that names the path.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = PathBuf::from(path);
    |source| OpenError::Directory { path, source }
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<ImageName, KnownImage>,
    uses: u64,
}

/// What is known of the file of one name.
#[derive(Debug, Default)]
struct KnownImage {
    /// Open for the next request.
    kept: Option<Image>,
    /// All that were opened and may still be in use, `kept` included.
    living: Vec<WeakImage>,
    /// When it was asked for last, counted in requests.
    used: u64,
    doubt: Doubt,
    /// How many staged images need the file.
    holds: u32,
}

/// What is held against the file of one name.
#[derive(Clone, Copy, Debug, Default)]
enum Doubt {
    #[default]
    None,
    /// It changed while it was open: look at its bytes before it is trusted again.
    Changed,
    /// In this state it is not what its name says.
    Refused(Identity),
}

impl Known {
    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Closes what was used least recently, and forgets what nobody has open.
    fn close_beyond(&mut self, open_max: usize) {
        let kept = self.entries.values_mut().filter(|entry| entry.kept.is_some());
        let mut kept: Vec<&mut KnownImage> = kept.collect();
        let surplus = kept.len().saturating_sub(open_max.max(1));
        kept.sort_unstable_by_key(|entry| entry.used);
        for entry in &mut kept[..surplus] {
            entry.kept = None;
        }
        self.entries.retain(|_, entry| !entry.idle());
    }
}

impl KnownImage {
    /// Is there nothing worth remembering?
    fn idle(&self) -> bool {
        self.kept.is_none()
            && self.holds == 0
            && matches!(self.doubt, Doubt::None)
            && self.living.iter().all(|weak| weak.upgrade().is_none())
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| at(path)(error.into()))
}

/// Removes the files that nobody wrote to for so long. One that another server removes at the same
/// time is no failure.
fn remove_files_in(directory: &Path, age_min: Duration) -> io::Result<()> {
    let now = SystemTime::now();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let removed = fs::symlink_metadata(&path).and_then(|metadata| {
            let age = now.duration_since(metadata.modified()?).unwrap_or_default();
            if age >= age_min { fs::remove_file(&path) } else { Ok(()) }
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Reads with ordinary reads: a file that is cut short meanwhile is an error here, no signal.
fn hashes_to(image: &Image, name: &ImageName) -> bool {
    hash_of(image).is_ok_and(|hash| hash == *name)
}

fn hash_of(image: &Image) -> io::Result<ImageName> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    while offset < image.len() {
        let length = rustix::io::pread(image, buffer.as_mut_slice(), offset)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        context.update(&buffer[..length]);
        offset += length as u64;
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}

/// No copy that is still under way has been silent for so long.
const ABANDONED_AFTER: Duration = Duration::from_secs(86_400);
/// Where images are written aside.
const INCOMING: &str = ".incoming";
