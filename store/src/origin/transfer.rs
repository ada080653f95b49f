//! One image from or to one origin.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use object_store::{Error, MultipartUpload, ObjectStoreExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::fetcher::Wanted;
use super::{Failure, Origin, chain};
use crate::aside::{CopyError, copy_named};
use crate::image::Image;
use crate::images::Images;
use crate::token::Mint;

/// Gets an image and keeps it, if it is what its name says.
///
/// # Errors
/// See [`Failure`]; nothing is kept then.
pub(super) async fn get(
    origin: &Origin,
    images: &Arc<Images>,
    wanted: Wanted,
    patience: Duration,
) -> Result<(), Failure> {
    let path = origin.path(&wanted.name);
    let asked = timeout(patience, origin.store.get(&path)).await;
    let found = asked.map_err(|_| silent(patience))?.map_err(refusal)?;
    if found.meta.size != wanted.size {
        let size = found.meta.size;
        return Err(Failure::Wrong(format!("it has {size} bytes, published were {}", wanted.size)));
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let images = Arc::clone(images);
    let copying = spawn_blocking(move || {
        let mut source = Chunks { receiver, rest: Bytes::new() };
        copy_named(&images, &Mint::new(), &mut source, &wanted.name, wanted.size)
    });
    let forwarded = forward(found.into_stream(), sender, patience).await;
    // What broke off is the reason, not what then was missing.
    let copied = copying.await.map_err(|error| Failure::Unkept(error.to_string()))?;
    forwarded?;
    copied.map_err(|error| match error {
        CopyError::Disk(source) => Failure::Unkept(source.to_string()),
        CopyError::Source(_)
        | CopyError::TooLong { .. }
        | CopyError::Empty
        | CopyError::Other { .. } => Failure::Wrong(error.to_string()),
    })
}

/// Puts an image that lies here, whole or not at all.
///
/// # Errors
/// What went wrong.
pub(super) async fn put(
    origin: &Origin,
    images: &Arc<Images>,
    wanted: Wanted,
    patience: Duration,
) -> Result<(), String> {
    let here = Arc::clone(images);
    let image = spawn_blocking(move || here.image(&wanted.name, wanted.size));
    let image = image.await.ok().flatten().ok_or("the image vanished meanwhile")?;
    let path = origin.path(&wanted.name);
    if wanted.size <= PART_BYTES {
        let bytes = part(&image, 0).await?;
        let patience = patience_for(patience, &bytes);
        within(patience, origin.store.put(&path, bytes.into())).await?;
        return Ok(());
    }
    let mut upload = within(patience, origin.store.put_multipart(&path)).await?;
    let sent = match put_parts(&mut *upload, &image, patience).await {
        Ok(()) => within(patience * COMPLETION_FACTOR, upload.complete()).await.map(|_| ()),
        Err(reason) => Err(reason),
    };
    if sent.is_err() {
        // What cannot be taken back is the storage's to tidy up; nobody sees it.
        let _ = within(patience, upload.abort()).await;
    }
    sent
}

/// Hands a body on until it ends or whoever takes it has had enough.
async fn forward(
    mut body: impl Stream<Item = object_store::Result<Bytes>> + Unpin,
    sender: mpsc::Sender<Bytes>,
    patience: Duration,
) -> Result<(), Failure> {
    while let Some(chunk) = timeout(patience, body.next()).await.map_err(|_| silent(patience))? {
        let chunk = chunk.map_err(|error| Failure::Unreachable(chain(&error)))?;
        // An empty one would look like the end.
        if !chunk.is_empty() && sender.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// A body, for a thread that may wait for it.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Chunks {
    /// The end of the channel is the end of the body: the image's length and hash tell whether all
    /// of it came.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.receiver.blocking_recv().unwrap_or_default();
        }
        let length = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

async fn put_parts(
    upload: &mut dyn MultipartUpload,
    image: &Image,
    patience: Duration,
) -> Result<(), String> {
    let mut offset = 0;
    while offset < image.len() {
        let bytes = part(image, offset).await?;
        offset += bytes.len() as u64;
        let patience = patience_for(patience, &bytes);
        within(patience, upload.put_part(bytes.into())).await?;
    }
    Ok(())
}

/// Reads a part of an image; not from the mapping, for the reasons in `image.rs`.
async fn part(image: &Image, offset: u64) -> Result<Bytes, String> {
    let image = image.clone();
    let read = spawn_blocking(move || {
        let mut bytes = vec![0; PART_BYTES.min(image.len() - offset) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::io::pread(&image, &mut bytes[filled..], offset + filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => filled += length,
            }
        }
        Ok(Bytes::from(bytes))
    });
    let read = read.await.map_err(|error| error.to_string())?;
    read.map_err(|error: io::Error| format!("cannot read the image: {error}"))
}

async fn within<T>(
    patience: Duration,
    doing: impl Future<Output = object_store::Result<T>>,
) -> Result<T, String> {
    match timeout(patience, doing).await {
        Ok(done) => done.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {} s", patience.as_secs_f32())),
    }
}

/// How long sending so much may take before it counts as standing still.
fn patience_for(patience: Duration, bytes: &Bytes) -> Duration {
    patience + Duration::from_secs(bytes.len() as u64 / SENT_BYTES_PER_S_MIN)
}

fn silent(patience: Duration) -> Failure {
    Failure::Unreachable(format!("nothing came for {} s", patience.as_secs_f32()))
}

fn refusal(error: Error) -> Failure {
    if matches!(error, Error::NotFound { .. }) {
        Failure::Missing
    } else if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) {
        Failure::Refused(chain(&error))
    } else {
        Failure::Unreachable(chain(&error))
    }
}

/// Of what was received, between the network and the disk.
const CHUNKS_WAITING_MAX: usize = 16;
/// What is held in memory of an image on its way to an origin. Object storage wants at least 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// The slowest way to an origin that is waited for.
const SENT_BYTES_PER_S_MIN: u64 = 64 << 10;
/// Object storage may put many parts together before it answers.
const COMPLETION_FACTOR: u32 = 6;
