//! Reading THiNX' deploy layout: `<owner>/<udid>/build.json` and the firmware beside it
//! (docs/wire.md 6.1).

use std::ffi::{OsStr, OsString};

use otter_protocol::{DeviceId, Kind, OwnerId};
use serde::Deserialize;

use crate::beneath::{Directory, Look, Regular};
use crate::bundle;
use crate::failure::Failure;
use crate::vet::{self, Form, Platform};

/// Where a build may stand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The name of the owner's directory.
    pub(crate) owner: OsString,
    /// The name of the device's directory.
    pub(crate) device: OsString,
}

/// A build as it was found.
#[derive(Debug)]
pub(crate) struct Build {
    pub(crate) owner: OwnerId,
    pub(crate) device: DeviceId,
    pub(crate) platform: String,
    pub(crate) version: String,
    pub(crate) env_hash: Option<String>,
    pub(crate) build_id: Option<String>,
    pub(crate) content: Content,
    /// The digest of the image by the envelope's word, if it has one.
    pub(crate) stated_sha256: Option<String>,
    /// All files that it was made from, and how they looked.
    pub(crate) looks: Looks,
}

/// File names and how each looked.
pub(crate) type Looks = Vec<(OsString, Look)>;

/// What is to be published.
#[derive(Debug)]
pub(crate) enum Content {
    Image(Regular),
    Bundle(Vec<u8>),
}

impl Content {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Image(_) => Kind::Image,
            Self::Bundle(_) => Kind::Bundle,
        }
    }
}

/// All places in the layout, and what stands where a place should be.
pub(crate) fn places(root: &Directory) -> Result<Vec<Result<Place, Failure>>, Failure> {
    let mut places = Vec::new();
    for owner in root.names()? {
        match root.directory(&owner).and_then(|dir| dir.map(|dir| dir.names()).transpose()) {
            Ok(Some(names)) => places
                .extend(names.into_iter().map(|device| Ok(Place { owner: owner.clone(), device }))),
            Ok(None) => {}
            Err(failure) => places.push(Err(failure)),
        }
    }
    Ok(places)
}

/// Reads the build at `place`; `None` if nothing was built there yet.
pub(crate) fn read(root: &Directory, place: &Place) -> Result<Option<Build>, Failure> {
    let Some(directory) = open(root, place)? else { return Ok(None) };
    let Some(mut envelope_file) = directory.file(OsStr::new(ENVELOPE))? else { return Ok(None) };
    let (owner, device) = ids(place)?;
    let envelope = Envelope::parse(&envelope_file.read(ENVELOPE_BYTES_MAX)?)?;
    envelope.belongs_to(owner, device)?;
    if let Some(status) = envelope.status.as_deref().filter(|status| *status != STATUS_OK) {
        return Err(Failure::failed(format!("its build ended with the status {status}")));
    }
    let Some(version) = envelope.version.or(envelope.firmware) else {
        return Err(Failure::failed("build.json names no version"));
    };
    let Some(platform_text) = envelope.platform else {
        return Err(Failure::failed("build.json names no platform"));
    };
    vet::version(&version)?;
    let platform = vet::platform(&platform_text)?;
    for (what, text) in [("env_hash", &envelope.env_hash), ("build_id", &envelope.build_id)] {
        text.iter().try_for_each(|text| vet::opaque(what, text))?;
    }
    let (content, mut looks) = content(&directory, platform)?;
    looks.insert(0, (OsString::from(ENVELOPE), envelope_file.look));
    Ok(Some(Build {
        owner,
        device,
        platform: platform_text.to_ascii_lowercase(),
        version,
        env_hash: envelope.env_hash,
        build_id: envelope.build_id,
        content,
        stated_sha256: envelope.sha,
        looks,
    }))
}

/// Is what stands at `place` still what `looks` were taken of?
pub(crate) fn unchanged(root: &Directory, place: &Place, looks: &Looks) -> bool {
    let Ok(Some(directory)) = open(root, place) else { return false };
    looks.iter().all(
        |(name, look)| matches!(directory.file(name), Ok(Some(regular)) if regular.look == *look),
    )
}

/// The parts of `build.json` that count. Values may be missing, and may be empty.
#[derive(Debug, Deserialize)]
struct Envelope {
    platform: Option<String>,
    udid: Option<String>,
    owner: Option<String>,
    version: Option<String>,
    firmware: Option<String>,
    env_hash: Option<String>,
    build_id: Option<String>,
    status: Option<String>,
    sha: Option<String>,
}

impl Envelope {
    fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let mut envelope: Self = serde_json::from_slice(bytes)
            .map_err(|error| Failure::failed(format!("build.json cannot be read: {error}")))?;
        for text in [
            &mut envelope.platform,
            &mut envelope.version,
            &mut envelope.firmware,
            &mut envelope.env_hash,
            &mut envelope.build_id,
            &mut envelope.status,
        ] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        // "0" stands where the builder found no file.
        envelope.sha = envelope.sha.filter(|sha| sha.len() == 64).map(|sha| sha.to_lowercase());
        Ok(envelope)
    }

    fn belongs_to(&self, owner: OwnerId, device: DeviceId) -> Result<(), Failure> {
        let same_owner = self.owner.as_deref().is_none_or(|text| text == owner.as_str());
        let same_device =
            self.udid.as_deref().is_none_or(|text| DeviceId::parse(text) == Some(device));
        let error = match (same_owner, same_device) {
            (true, true) => return Ok(()),
            (false, _) => "build.json names another owner than its directory",
            (true, false) => "build.json names another device than its directory",
        };
        Err(Failure::failed(error))
    }
}

fn open(root: &Directory, place: &Place) -> Result<Option<Directory>, Failure> {
    match root.directory(&place.owner)? {
        Some(owner) => owner.directory(&place.device),
        None => Ok(None),
    }
}

fn ids(place: &Place) -> Result<(OwnerId, DeviceId), Failure> {
    let Some(owner) = place.owner.to_str().and_then(OwnerId::parse) else {
        return Err(Failure::failed("its owner's directory is not named like an owner"));
    };
    match place.device.to_str().and_then(DeviceId::parse) {
        Some(device) => Ok((owner, device)),
        None => Err(Failure::failed("its directory is not named like a udid")),
    }
}

fn content(directory: &Directory, platform: &Platform) -> Result<(Content, Looks), Failure> {
    let names = match platform.form {
        Form::Image { names, .. } => names,
        Form::Files { .. } => {
            let bundle = bundle::render(directory, platform)?;
            return Ok((Content::Bundle(bundle.json), bundle.looks));
        }
    };
    for name in names {
        if let Some(regular) = directory.file(OsStr::new(name))? {
            let looks = vec![(OsString::from(name), regular.look)];
            return Ok((Content::Image(regular), looks));
        }
    }
    Err(Failure::failed(format!("there is no {} beside build.json", names.join(" or "))))
}

const ENVELOPE: &str = "build.json";
const ENVELOPE_BYTES_MAX: u64 = 64 << 10;
/// The one state of a build that is served (docs/wire.md 6.1).
const STATUS_OK: &str = "OK";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const UDID: &str = "5ccf7fee-1337-4000-8000-00000000ab01";

    #[test]
    fn a_build_is_read_from_its_envelope() {
        let (_dir, place, path, root) = tree();
        assert!(read(&root, &place).expect("fine").is_none(), "nothing built yet");
        let owner = place.owner.display().to_string();
        fs::write(path.join("firmware.bin"), [0xE9; 2000]).expect("written");
        write_envelope(
            &path,
            &format!(
                r#"{{"platform":"platformio","owner":"{owner}","udid":"{UDID}","status":"OK",
                "version":"y:1.2.3","build_id":"b1","env_hash":"e","sha":"0","timestamp":1}}"#
            ),
        );
        let build = read(&root, &place).expect("read").expect("there");
        assert_eq!(build.owner.as_str(), owner);
        assert_eq!(build.device.to_string(), UDID);
        assert_eq!((build.version.as_str(), build.platform.as_str()), ("y:1.2.3", "platformio"));
        assert_eq!((build.env_hash.as_deref(), build.build_id.as_deref()), (Some("e"), Some("b1")));
        assert_eq!(build.stated_sha256, None);
        assert_eq!(build.content.kind(), Kind::Image);
        assert!(unchanged(&root, &place, &build.looks));
        fs::write(path.join("firmware.bin"), [0xE9; 2001]).expect("written");
        assert!(!unchanged(&root, &place, &build.looks));
    }

    #[test]
    fn a_build_of_files_is_a_bundle() {
        let (_dir, place, path, root) = tree();
        fs::write(path.join("thinx.lua"), "x").expect("written");
        write_envelope(&path, r#"{"platform":"nodemcu","version":"1.0.0"}"#);
        let build = read(&root, &place).expect("read").expect("there");
        assert_eq!(build.content.kind(), Kind::Bundle);
        assert_eq!(build.looks.len(), 2);
    }

    #[test]
    fn bad_builds_are_refused_in_words() {
        for (envelope, words) in [
            ("{", "cannot be read"),
            (r#"{"platform":"arduino","version":"1","status":"FAILED"}"#, "status FAILED"),
            (r#"{"platform":"arduino","version":"1","status":"DRY_RUN_OK"}"#, "DRY_RUN_OK"),
            (r#"{"platform":"arduino","version":"1","owner":"x"}"#, "another owner"),
            (r#"{"platform":"arduino","version":"1","udid":"../x"}"#, "another device"),
            (r#"{"platform":"arduino"}"#, "no version"),
            (r#"{"version":"1"}"#, "no platform"),
            (r#"{"platform":"nodejs","version":"1"}"#, "not supported"),
            (r#"{"platform":"arduino","version":"\"1"}"#, "quote"),
            (r#"{"platform":"arduino","version":"1"}"#, "no firmware.bin"),
        ] {
            let (_dir, place, path, root) = tree();
            write_envelope(&path, envelope);
            let error = read(&root, &place).expect_err(envelope);
            assert!(error.error.contains(words), "{envelope}: {error}");
        }
    }

    #[test]
    fn names_that_are_no_ids_and_links_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let wrong = dir.path().join("owner").join(UDID);
        fs::create_dir_all(&wrong).expect("made");
        write_envelope(&wrong, "{}");
        std::os::unix::fs::symlink("owner", dir.path().join("link")).expect("linked");
        fs::write(dir.path().join("stray"), "").expect("written");
        let root = Directory::open(dir.path()).expect("opened");
        let found = places(&root).expect("read");
        assert_eq!(found.len(), 2);
        let failure = found[0].as_ref().expect_err("sorted first");
        assert!(failure.error.contains("symbolic link"), "{failure}");
        let place = found[1].as_ref().expect("a place");
        let failure = read(&root, place).expect_err("no owner");
        assert!(failure.error.contains("not named like an owner"), "{failure}");
    }

    fn tree() -> (tempfile::TempDir, Place, PathBuf, Directory) {
        let dir = tempfile::tempdir().expect("a directory");
        let owner = "a1".repeat(32);
        let path = dir.path().join(&owner).join(UDID);
        fs::create_dir_all(&path).expect("made");
        let root = Directory::open(dir.path()).expect("opened");
        (dir, Place { owner: owner.into(), device: UDID.into() }, path, root)
    }

    fn write_envelope(path: &std::path::Path, text: &str) {
        fs::write(path.join(ENVELOPE), text).expect("written");
    }
}
