//! Releases: publishing, listing, withdrawing.

use std::io::{self, Read};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use otter_protocol::update::{Verdict, judge, parse_version};
use otter_protocol::{Kind, Offer, ReleaseId};
use otter_store::{NewRelease, ReleaseRow, Target};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Admin, Named, Params, ask, device_from, hex, no_device, owner_from};
use crate::bundle;
use crate::failure::Failure;
use crate::shapes::{Published, ReleaseEntry, ReleaseWanted};
use crate::vet;

/// `?owner=&device=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    owner: Option<String>,
    device: Option<String>,
}

/// The newest first.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(filter): Params<Filter>,
) -> Result<Json<Vec<ReleaseEntry>>, Failure> {
    let owner = filter.owner.as_deref().map(owner_from).transpose()?;
    let device = filter.device.as_deref().map(device_from).transpose()?;
    let mut rows = ask(&admin, move |admin| Ok(admin.operator.releases(owner.as_ref())?)).await?;
    if let Some(device) = device {
        let found = ask(&admin, move |admin| Ok(admin.operator.device(device)?)).await?;
        rows.retain(|row| match row.target {
            Target::Device(target) => target == device,
            Target::All => found.as_ref().is_some_and(|device| {
                device.owner == row.owner
                    && device.platform.as_deref().is_some_and(|p| same_platform(p, &row.offer))
            }),
        });
    }
    Ok(Json(rows.into_iter().rev().map(entry).collect()))
}

pub(super) async fn publish(
    State(admin): State<Arc<Admin>>,
    Params(wanted): Params<ReleaseWanted>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<Json<Published>, Failure> {
    let result = publish_body(&admin, &wanted, &headers, &mut body).await;
    if result.is_err() {
        // Whoever is still sending would not hear why.
        drain(&mut body).await;
    }
    result.map(Json)
}

pub(super) async fn withdraw(
    State(admin): State<Arc<Admin>>,
    Named(id): Named,
) -> Result<Json<ReleaseEntry>, Failure> {
    let Some(release) = ReleaseId::parse(&id) else {
        return Err(Failure::usage("a release id is 36 characters, hexadecimal as 8-4-4-4-12"));
    };
    let row = ask(&admin, move |admin| Ok(admin.operator.withdraw(release)?)).await?;
    Ok(Json(entry(row)))
}

/// Is `offer` an update for a device of this version and environment hash?
pub(super) fn is_update(offer: &Offer, version: Option<&str>, env_hash: Option<&str>) -> bool {
    judge(offer, version, env_hash) == Verdict::Update
}

async fn publish_body(
    admin: &Arc<Admin>,
    wanted: &ReleaseWanted,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Published, Failure> {
    let release = check(admin, wanted).await?;
    let bytes_max = match release.kind {
        Kind::Image => admin.image_bytes_max,
        Kind::Bundle => bundle::BUNDLE_BYTES_MAX,
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > bytes_max) {
        return Err(Failure::failed(format!("more than {bytes_max} bytes"))
            .hint("`image_bytes_max` in docs/configuration.md is the limit for images"));
    }
    let (sender, incoming) = Incoming::new();
    let wanted = wanted.clone();
    let task = ask(admin, move |admin| admin.receive(release, incoming, bytes_max, &wanted));
    let (sent, published) = tokio::join!(forward(body, sender), task);
    sent.and(published)
}

/// Checks everything but the body.
async fn check(admin: &Arc<Admin>, wanted: &ReleaseWanted) -> Result<NewRelease, Failure> {
    let owner = owner_from(&wanted.owner)?;
    vet::version(&wanted.version)?;
    vet::platform(&wanted.platform)?;
    for (what, text) in [("env_hash", &wanted.env_hash), ("source", &wanted.source)] {
        text.iter().try_for_each(|text| vet::opaque(what, text))?;
    }
    let kind = match wanted.kind.as_deref() {
        None | Some(IMAGE) => Kind::Image,
        Some(BUNDLE) => Kind::Bundle,
        Some(_) => return Err(Failure::usage("`kind` must be `image` or `bundle`")),
    };
    let target = match (wanted.device.as_deref(), wanted.all.unwrap_or_default()) {
        (Some(udid), false) => Target::Device(device_from(udid)?),
        (None, true) => Target::All,
        (Some(_), true) | (None, false) => {
            return Err(Failure::usage("say either `device=<udid>` or `all=true`"));
        }
    };
    if let (Target::Device(device), false) = (target, wanted.unregistered.unwrap_or_default()) {
        let row = ask(admin, move |admin| Ok(admin.operator.device(device)?)).await?;
        let Some(row) = row else {
            let hint = "let the device check in first; `otter import` publishes for devices that \
                        have not";
            return Err(no_device(device).hint(hint));
        };
        if row.owner != owner {
            let error = format!("the device {device} belongs to another owner");
            return Err(
                Failure::conflict(error).hint("publish for that one: `otter device show` names it")
            );
        }
    }
    Ok(NewRelease {
        owner,
        target,
        version: wanted.version.clone(),
        platform: wanted.platform.to_ascii_lowercase(),
        env_hash: wanted.env_hash.clone(),
        kind,
        source: wanted.source.clone(),
    })
}

impl Admin {
    /// Copies the body in, looks at it, publishes it. Blocks.
    fn receive(
        &self,
        release: NewRelease,
        mut incoming: Incoming,
        bytes_max: u64,
        wanted: &ReleaseWanted,
    ) -> Result<Published, Failure> {
        let platform = vet::platform(&release.platform)?;
        let staged = match release.kind {
            Kind::Image => self.operator.stage(&mut incoming, bytes_max)?,
            Kind::Bundle => {
                let mut json = Vec::new();
                (&mut incoming)
                    .take(bytes_max + 1)
                    .read_to_end(&mut json)
                    .map_err(|error| Failure::failed(error.to_string()))?;
                bundle::check(&json, platform)?;
                self.operator.stage(&mut json.as_slice(), bytes_max)?
            }
        };
        let kind = release.kind;
        let odd = vet::content(platform, kind, staged.first_bytes(), staged.size())?;
        if wanted.sha256.as_ref().is_some_and(|sha256| *sha256 != hex(&staged.sha256())) {
            let error = "the bytes that arrived are not those that were announced";
            return Err(Failure::conflict(error).hint("the file changed meanwhile: try again"));
        }
        let mut warnings: Vec<_> = odd.into_iter().collect();
        // An import knows by itself what it did before, and may be of very many.
        if !wanted.unregistered.unwrap_or_default() {
            warnings.extend(self.doubts(&release, &staged.sha256())?);
        }
        let published = self.operator.publish(release, staged, &is_update)?;
        let offer = published.offer;
        if parse_version(&offer.version).is_none() {
            let version = &offer.version;
            warnings
                .push(format!("no device updates to `{version}` by itself: it cannot be compared"));
        }
        Ok(Published {
            release: offer.release.to_string(),
            version: offer.version.to_string(),
            platform: offer.platform.to_string(),
            size: offer.size,
            sha256: hex(&offer.sha256),
            md5: hex(&offer.md5),
            devices: published.devices,
            waiting: published.waiting,
            warnings,
        })
    }

    /// What an operator may not have meant, though it can be done.
    fn doubts(&self, release: &NewRelease, sha256: &[u8; 32]) -> Result<Vec<String>, Failure> {
        let mut doubts = Vec::new();
        let mut rows = self.operator.releases(Some(&release.owner))?.into_iter().rev();
        let same = rows.find(|row| row.target == release.target).filter(|row| {
            row.withdrawn.is_none()
                && row.offer.sha256 == *sha256
                && *row.offer.version == *release.version
                && *row.offer.platform == *release.platform
                && row.offer.env_hash.as_deref() == release.env_hash.as_deref()
        });
        if let Some(row) = same {
            doubts.push(format!("the release before, {}, is the same", row.offer.release));
        }
        if let Target::Device(device) = release.target
            && let Some(row) = self.operator.device(device)?
            && let Some(reported) = row.platform
            && family(&reported) != family(&release.platform)
        {
            let platform = &release.platform;
            doubts.push(format!("the device reports the platform {reported}, not {platform}"));
        }
        Ok(doubts)
    }
}

/// The part of a platform that devices and releases are compared by.
fn family(platform: &str) -> &str {
    platform.split(':').next().unwrap_or_default()
}

/// Hands the body to the thread that stores it.
async fn forward(body: &mut Body, sender: mpsc::Sender<io::Result<Bytes>>) -> Result<(), Failure> {
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
            Err(error) => Err(io::Error::other(error)),
        };
        let failed = frame.is_err();
        let empty = frame.as_ref().is_ok_and(Bytes::is_empty);
        if !empty && sender.send(frame).await.is_err() {
            // The thread gave up, and says why itself.
            return Ok(());
        }
        if failed {
            return Err(Failure::failed("the image did not arrive whole; nothing was published"));
        }
    }
    // Its absence says that this task was dropped, because the client went away.
    let _ = sender.send(Ok(END)).await;
    Ok(())
}

/// Reads and forgets what is left of a body.
async fn drain(body: &mut Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// A body, for a thread that may wait for it. Ends early only with an error.
struct Incoming {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
    ended: bool,
}

impl Incoming {
    fn new() -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
        (sender, Self { receiver, rest: Bytes::new(), ended: false })
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && !self.ended {
            self.rest = self.receiver.blocking_recv().unwrap_or_else(|| {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the sender went away"))
            })?;
            self.ended = self.rest.is_empty();
        }
        let n = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

fn entry(row: ReleaseRow) -> ReleaseEntry {
    let offer = row.offer;
    ReleaseEntry {
        release: offer.release.to_string(),
        owner: row.owner.to_string(),
        device: match row.target {
            Target::Device(device) => Some(device.to_string()),
            Target::All => None,
        },
        version: offer.version.to_string(),
        platform: offer.platform.to_string(),
        env_hash: offer.env_hash.as_deref().map(str::to_owned),
        kind: match offer.kind {
            Kind::Image => IMAGE.to_owned(),
            Kind::Bundle => BUNDLE.to_owned(),
        },
        size: offer.size,
        sha256: hex(&offer.sha256),
        md5: hex(&offer.md5),
        published: row.published,
        withdrawn: row.withdrawn,
        source: row.source,
    }
}

fn same_platform(device: &str, offer: &Offer) -> bool {
    *device == *offer.platform || *family(device) == *offer.platform
}

/// What ends a body on its way to the thread that stores it; no other frame is empty.
const END: Bytes = Bytes::new();
const IMAGE: &str = "image";
const BUNDLE: &str = "bundle";
/// Frames of a body that wait for the thread that stores them.
const FRAMES_WAITING_MAX: usize = 16;
