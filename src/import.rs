//! `otter import`: THiNX' deploy layout, once or for as long as it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use otter_protocol::OwnerId;
use serde::Serialize;

use crate::beneath::Directory;
use crate::cli;
use crate::client::{Client, IfAbsent};
use crate::deploy::{self, Build, Place};
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::shapes::{OwnerEntry, OwnerName, OwnerWanted, ReleaseEntry, ReleaseWanted};
use crate::upload;
use crate::watch;

pub(crate) fn run(data: &Path, args: &cli::Import, output: Output) -> Result<ExitCode, Failure> {
    let root = Directory::open(&args.dir)?;
    if args.watch {
        return watch::run(data, args, &root, output);
    }
    let mut importer = Importer::open(data, output)?;
    let (mut failed, mut found) = (false, false);
    for place in deploy::places(&root)? {
        let line = place.and_then(|place| match deploy::read(&root, &place) {
            Ok(Some(build)) => match importer.publish(&root, &place, build) {
                Ok(Some(line)) => Ok(Some(line)),
                Ok(None) => Ok(Some(Line::failed(&place, &changed()))),
                // The store or the server, not the build.
                Err(failure) if failure.kind == Kind::Unavailable => Err(failure),
                Err(failure) => Ok(Some(Line::failed(&place, &failure))),
            },
            Ok(None) => Ok(None),
            Err(failure) => Ok(Some(Line::failed(&place, &failure))),
        });
        let line = match line {
            Ok(line) => line,
            Err(failure) if failure.kind == Kind::Unavailable => return Err(failure),
            Err(failure) => Some(Line::nameless(&failure)),
        };
        if let Some(line) = line {
            found = true;
            failed |= line.result == FAILED;
            line.print(output)?;
        }
    }
    if !found {
        output.note(&format!(
            "nothing to import: there is no OWNER/UDID/build.json in {}",
            args.dir.display()
        ));
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// Publishes builds, each once.
pub(crate) struct Importer {
    client: Client,
    output: Output,
    /// The newest release for each device of the owners met so far, by owner and udid.
    newest: BTreeMap<OwnerId, BTreeMap<String, Known>>,
    owners: Vec<String>,
}

impl Importer {
    pub(crate) fn open(data: &Path, output: Output) -> Result<Self, Failure> {
        let client = Client::open(data, IfAbsent::Create)?;
        let owners: Vec<OwnerEntry> = client.get("/owners")?;
        let owners = owners.into_iter().map(|entry| entry.owner).collect();
        Ok(Self { client, output, newest: BTreeMap::new(), owners })
    }

    /// Publishes `build` unless that was done before; `None` if it changed since it was read.
    pub(crate) fn publish(
        &mut self,
        root: &Directory,
        place: &Place,
        mut build: Build,
    ) -> Result<Option<Line>, Failure> {
        self.know(build.owner)?;
        let sha256 = match upload::sha256(&mut build.content) {
            Ok(sha256) => sha256,
            Err(failure) if failure.kind == Kind::Conflict => return Ok(None),
            Err(failure) => return Err(failure),
        };
        // Hashed between two looks at all its files: envelope and image belong together.
        if !deploy::unchanged(root, place, &build.looks) {
            return Ok(None);
        }
        let udid = build.device.to_string();
        let newest = self.newest.entry(build.owner).or_default();
        let known = newest.get(&udid);
        if let Some(known) = known.filter(|known| known.identity.is_of(&build, &sha256)) {
            return Ok(Some(Line::of(UNCHANGED, &build, known.release.clone())));
        }
        let wanted = ReleaseWanted {
            owner: build.owner.to_string(),
            device: Some(udid.clone()),
            all: None,
            version: build.version.clone(),
            platform: build.platform.clone(),
            env_hash: build.env_hash.clone(),
            kind: None,
            sha256: Some(sha256),
            source: build.build_id.clone(),
            unregistered: Some(true),
        };
        let content = std::mem::replace(&mut build.content, deploy::Content::Bundle(Vec::new()));
        let published = match upload::publish(&self.client, content, &wanted, self.output) {
            Ok(published) => published,
            Err(_) if !deploy::unchanged(root, place, &build.looks) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        for warning in &published.warnings {
            self.output.note(&format!("warning: {udid}: {warning}"));
        }
        let identity = Identity {
            sha256: published.sha256,
            version: published.version,
            env_hash: build.env_hash.clone(),
            build_id: build.build_id.clone(),
        };
        newest.insert(udid, Known { release: published.release.clone(), identity });
        Ok(Some(Line::of(PUBLISHED, &build, published.release)))
    }

    /// Makes the owner if need be, and learns what is published for its devices.
    fn know(&mut self, owner: OwnerId) -> Result<(), Failure> {
        if self.newest.contains_key(&owner) {
            return Ok(());
        }
        let id = owner.to_string();
        if !self.owners.contains(&id) {
            let wanted = OwnerWanted { owner: Some(id.clone()) };
            let made: OwnerName = self.client.post("/owners", &wanted)?;
            self.output.note(&format!(
                "made the owner {0}; its devices need a key: otter key create --owner {0}",
                made.owner
            ));
            self.owners.push(id);
        }
        let releases: Vec<ReleaseEntry> = self.client.get(&format!("/releases?owner={owner}"))?;
        let newest = self.newest.entry(owner).or_default();
        for release in releases {
            // The newest come first. One that was withdrawn counts: it must not come back.
            if let Some(device) = release.device.clone() {
                newest.entry(device).or_insert_with(|| release.into());
            }
        }
        Ok(())
    }
}

/// The release that a device was given last.
struct Known {
    release: String,
    identity: Identity,
}

/// What makes two builds the same.
struct Identity {
    sha256: String,
    version: String,
    env_hash: Option<String>,
    build_id: Option<String>,
}

impl Identity {
    fn is_of(&self, build: &Build, sha256: &str) -> bool {
        self.sha256 == sha256
            && self.version == build.version
            && self.env_hash == build.env_hash
            && self.build_id == build.build_id
    }
}

impl From<ReleaseEntry> for Known {
    fn from(entry: ReleaseEntry) -> Self {
        let identity = Identity {
            sha256: entry.sha256,
            version: entry.version,
            env_hash: entry.env_hash,
            build_id: entry.source,
        };
        Self { release: entry.release, identity }
    }
}

/// What became of one build.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Line {
    pub(crate) fn failed(place: &Place, failure: &Failure) -> Self {
        Self {
            owner: Some(place.owner.display().to_string()),
            udid: Some(place.device.display().to_string()),
            ..Self::nameless(failure)
        }
    }

    pub(crate) fn nameless(failure: &Failure) -> Self {
        Self {
            result: FAILED,
            owner: None,
            udid: None,
            version: None,
            release: None,
            error: Some(failure.to_string()),
        }
    }

    pub(crate) fn print(&self, output: Output) -> Result<(), Failure> {
        output.show(self, |line| {
            let place = match (&line.owner, &line.udid) {
                (Some(owner), Some(udid)) => format!("{owner}/{udid}"),
                (None, _) | (_, None) => String::new(),
            };
            let parts = [
                Some(format!("{:9}", line.result)),
                Some(place).filter(|place| !place.is_empty()),
                line.version.clone(),
                line.release.as_ref().map(|release| format!("release {release}")),
                line.error.clone(),
            ];
            parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
        })
    }

    fn of(result: &'static str, build: &Build, release: String) -> Self {
        Self {
            result,
            owner: Some(build.owner.to_string()),
            udid: Some(build.device.to_string()),
            version: Some(build.version.clone()),
            release: Some(release),
            error: None,
        }
    }
}

fn changed() -> Failure {
    Failure::failed("it changed while it was read")
        .hint("it is being written: try again, or use --watch")
}

const PUBLISHED: &str = "published";
const UNCHANGED: &str = "unchanged";
const FAILED: &str = "failed";
