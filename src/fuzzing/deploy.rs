//! THiNX' deploy layout with anything in it.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::directory;
use crate::beneath::Directory;
use crate::deploy::{self, Build, Content, Place};
use crate::{bundle, vet};

/// Whatever lies in a deploy directory is read or refused in words. What is read belongs to the
/// owner and device that its directories are named after, may be published, and is nothing from
/// outside, however links are laid.
///
/// Entries are separated by 0x1e: a letter, the name, a line feed, the content. `f` is a file
/// beside `build.json`, `d` a directory, `l` a link to what the content says; in upper case the
/// same at the top.
///
/// # Panics
/// If that is not so.
pub fn deploy_import(bytes: &[u8]) {
    if holds(bytes, SECRET) {
        // Who knows it may say it.
        return;
    }
    let directory = directory();
    fs::write(directory.path().join("secret"), SECRET).expect("written");
    let top = directory.path().join("deploy");
    let inner = top.join(OWNER).join(UDID);
    fs::create_dir_all(&inner).expect("made");
    for entry in bytes.split(|byte| *byte == 0x1e) {
        let Some((kind, rest)) = entry.split_first() else { continue };
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (name, content) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
            continue;
        }
        let folder = if kind.is_ascii_uppercase() { &top } else { &inner };
        make(kind.to_ascii_lowercase(), &folder.join(OsStr::from_bytes(name)), content);
    }
    let root = Directory::open(&top).expect("it is there");
    for place in deploy::places(&root).expect("it can be read") {
        let Ok(place) = place else { continue };
        match deploy::read(&root, &place) {
            Ok(Some(build)) => check(&root, &place, build),
            Ok(None) => {}
            Err(failure) => {
                assert!(!failure.error.is_empty() && !failure.error.contains(SECRET), "{failure}");
            }
        }
    }
}

/// What cannot be made, such as a name that is too long, is not there.
fn make(kind: u8, path: &Path, content: &[u8]) {
    let _ = match kind {
        b'f' => fs::write(path, content),
        b'd' => fs::create_dir(path),
        b'l' if !content.contains(&0) => symlink(OsStr::from_bytes(content), path),
        _ => Ok(()),
    };
}

fn check(root: &Directory, place: &Place, build: Build) {
    assert_eq!(place.owner.to_str(), Some(build.owner.as_str()));
    let device = place.device.to_str().and_then(otter_protocol::DeviceId::parse);
    assert_eq!(device, Some(build.device));
    assert_eq!(vet::version(&build.version), Ok(()));
    let platform = vet::platform(&build.platform).expect("one that is known");
    for text in build.env_hash.iter().chain(&build.build_id) {
        assert_eq!(vet::opaque("text", text), Ok(()));
    }
    assert!(deploy::unchanged(root, place, &build.looks), "nobody changes it");
    let content = match build.content {
        Content::Bundle(json) => {
            assert_eq!(bundle::check(&json, platform), Ok(()));
            json
        }
        Content::Image(mut regular) => {
            let mut image = Vec::new();
            regular.file.read_to_end(&mut image).expect("readable");
            assert_eq!(image.len() as u64, regular.look.size);
            image
        }
    };
    assert!(!holds(&content, SECRET), "something from outside would be published");
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

const OWNER: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const UDID: &str = "5ccf7fee-1337-4000-8000-00000000ab01";
/// Lies beside the deploy directory, and must stay there.
const SECRET: &str = "kept apart from all builds";

#[cfg(test)]
pub(super) const SEEDS: &[&str] = &[
    "fbuild.json\n{\"platform\":\"platformio\",\"udid\":\"5ccf7fee-1337-4000-8000-00000000ab01\",\
     \"status\":\"OK\",\"version\":\"y:1.2.3\",\"build_id\":\"b1\",\"env_hash\":\"e\",\
     \"sha\":\"0\",\"timestamp\":1}\x1effirmware.bin\nimage",
    "fbuild.json\n{\"platform\":\"nodemcu\",\"version\":\"1.0.0\"}\x1efthinx.lua\nprint(1)\
     \x1efconfig.lua\n\x1efREADME\nno",
    "fbuild.json\n{\"platform\":\"mongoose\",\"firmware\":\"1.0.0\",\"sha\":\"aa\"}\
     \x1elfw.zip\n../../../secret",
    "lbuild.json\n../../../secret",
    "fbuild.json\n{\"platform\":\"python\",\"version\":\"1\"}\x1elx.py\n../../../secret\
     \x1edy.py\n",
    "fbuild.json\n{\"platform\":\"arduino\",\"version\":\"1\",\"owner\":\"x\"}\x1eFstray\n\
     \x1eDowner\n\x1eLlink\nowner",
];
