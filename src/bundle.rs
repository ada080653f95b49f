//! Several text files as one JSON text, the multi-file answer of docs/wire.md 6.2.

use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use crate::beneath::{Directory, Look};
use crate::failure::{Context, Failure};
use crate::vet::{Form, Platform};

/// A bundle, rendered.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// `{"type":"file","files":[{"name":"..","data":".."}]}`
    pub(crate) json: Vec<u8>,
    /// The files in it, and how they looked when they were read.
    pub(crate) looks: Vec<(OsString, Look)>,
    /// Names that were left out, because they are neither the header nor source files.
    pub(crate) left_out: Vec<OsString>,
}

/// Renders the files of `directory` that belong to `platform`, sorted by name.
pub(crate) fn render(directory: &Directory, platform: &Platform) -> Result<Bundle, Failure> {
    let (mut texts, mut looks, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let mut room = BUNDLE_BYTES_MAX;
    for name in directory.names()? {
        if !platform.has(&name) {
            left_out.push(name);
            continue;
        }
        let Some(mut regular) = directory.file(&name)? else { continue };
        let path = regular.path.clone();
        let bytes = regular.read(room).map_err(|_| too_large(directory))?;
        room -= bytes.len() as u64;
        let data = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        let (Some(data), Some(shown)) = (data, name.to_str()) else {
            let error = format!("{} is not UTF-8 text", path.display());
            return Err(Failure::failed(error).hint("a bundle carries source files only"));
        };
        texts.push(Text { name: shown.to_owned(), data });
        looks.push((name, regular.look));
    }
    if texts.is_empty() {
        let error = format!("{} has no files for this platform", directory.path().display());
        return Err(Failure::failed(error).hint(platform.expected()));
    }
    let json = to_json(texts)?;
    if json.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(too_large(directory));
    }
    Ok(Bundle { json, looks, left_out })
}

/// Renders one text file by itself.
pub(crate) fn render_one(name: &OsStr, bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let data = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    match (name.to_str(), data) {
        (Some(name), Some(data)) => to_json(vec![Text { name: name.to_owned(), data }]),
        _ => Err(Failure::failed(format!("{} is not UTF-8 text", name.display()))),
    }
}

/// Checks a bundle that somebody else rendered.
pub(crate) fn check(json: &[u8], platform: &Platform) -> Result<(), Failure> {
    let parsed: Files = serde_json::from_slice(json)
        .map_err(|error| Failure::failed(format!("this is no bundle: {error}")))?;
    let names: Vec<_> = parsed.files.iter().map(|file| file.name.as_str()).collect();
    if parsed.r#type != FILE || names.is_empty() {
        return Err(Failure::failed("a bundle has the type `file` and at least one file"));
    }
    match names.iter().find(|name| name.contains('/') || !platform.has(OsStr::new(name))) {
        Some(name) => Err(Failure::failed(format!("{name} does not belong in a bundle"))
            .hint(platform.expected())),
        None if !names.is_sorted_by(|a, b| a < b) => {
            Err(Failure::failed("the names in a bundle are sorted, and each is there once"))
        }
        None => Ok(()),
    }
}

/// Most bytes of a rendered bundle.
pub(crate) const BUNDLE_BYTES_MAX: u64 = 1 << 20;
const FILE: &str = "file";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Files {
    r#type: String,
    files: Vec<Text>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    data: String,
}

impl Platform {
    /// Does a file of this name belong in a bundle?
    pub(crate) fn has(&self, name: &OsStr) -> bool {
        let Form::Files { header, extension } = self.form else { return false };
        let Some(name) = name.to_str() else { return false };
        let source =
            name.strip_suffix(extension).is_some_and(|stem| stem.len() > 1 && stem.ends_with('.'));
        name == header || source
    }

    fn expected(&self) -> String {
        match self.form {
            Form::Files { header, extension } => format!("expected are {header} and *.{extension}"),
            Form::Image { names, .. } => format!("expected is {}", names.join(" or ")),
        }
    }
}

fn to_json(files: Vec<Text>) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(&Files { r#type: FILE.to_owned(), files })
        .context(|| "cannot render the bundle".to_owned())
}

fn too_large(directory: &Directory) -> Failure {
    let path = directory.path().display();
    Failure::failed(format!("the files in {path} are more than {BUNDLE_BYTES_MAX} bytes as JSON"))
        .hint("devices hold a bundle in memory: leave out what they do not need")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::vet;

    #[test]
    fn files_are_rendered_in_order_and_others_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            ("thinx.lua", "print(\"hi\")\n"),
            ("config.lua", "x=1"),
            ("README.md", "no"),
            (".x.lua", ""),
        ] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        let bundle = rendered(dir.path(), "nodemcu").expect("rendered");
        assert_eq!(
            String::from_utf8(bundle.json.clone()).expect("text"),
            [
                r#"{"type":"file","files":[{"name":"config.lua","data":"x=1"},"#,
                r#"{"name":"thinx.lua","data":"print(\"hi\")\n"}]}"#
            ]
            .concat()
        );
        assert_eq!(bundle.left_out, ["README.md"]);
        let nodemcu = vet::platform("nodemcu").expect("known");
        assert_eq!(check(&bundle.json, nodemcu), Ok(()));
    }

    #[test]
    fn what_cannot_go_into_a_bundle_is_named() {
        let cases: [(&str, &[u8], &str); 4] = [
            ("a.lua", b"\xff\xfe", "a.lua is not UTF-8"),
            ("b.lua", b"x\0y", "b.lua is not UTF-8"),
            ("c.py", b"x", "no files for this platform"),
            ("d.lua", &[b'x'; (1 << 20) + 1], "more than 1048576 bytes"),
        ];
        for (name, bytes, words) in cases {
            let dir = tempfile::tempdir().expect("a directory");
            fs::write(dir.path().join(name), bytes).expect("written");
            let error = rendered(dir.path(), "nodemcu").expect_err(name);
            assert!(error.error.contains(words), "{error}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("e.lua")).expect("linked");
        let error = rendered(dir.path(), "nodemcu").expect_err("a link");
        assert!(error.error.contains("symbolic link"), "{error}");
    }

    #[test]
    fn bundles_of_others_are_checked() {
        let nodemcu = vet::platform("nodemcu").expect("known");
        let named = |names: &[&str]| {
            let files: Vec<_> =
                names.iter().map(|name| format!(r#"{{"name":"{name}","data":""}}"#)).collect();
            format!(r#"{{"type":"file","files":[{}]}}"#, files.join(","))
        };
        assert_eq!(check(named(&["a.lua", "b.lua"]).as_bytes(), nodemcu), Ok(()));
        for wrong in [
            named(&[]),
            named(&["../a.lua"]),
            named(&["a.sh"]),
            named(&[".lua"]),
            named(&["b.lua", "a.lua"]),
            named(&["a.lua", "a.lua"]),
            named(&["a.lua"]).replace("file\"", "zip\""),
            "[]".to_owned(),
        ] {
            assert!(check(wrong.as_bytes(), nodemcu).is_err(), "{wrong}");
        }
    }

    fn rendered(path: &Path, platform: &str) -> Result<Bundle, Failure> {
        render(&Directory::open(path)?, vet::platform(platform)?)
    }
}
