//! `otter publish`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::beneath::{Directory, Regular};
use crate::bundle;
use crate::cli;
use crate::client::{Client, IfAbsent};
use crate::deploy::Content;
use crate::failure::Failure;
use crate::output::{Output, pairs};
use crate::shapes::{Health, Published, ReleaseWanted};
use crate::upload;
use crate::vet::{self, Form, Platform};

pub(crate) fn run(data: &Path, args: &cli::Publish, output: Output) -> Result<(), Failure> {
    let platform = vet::platform(&args.platform)?;
    vet::version(&args.version)?;
    args.env_hash.iter().try_for_each(|text| vet::opaque("env-hash", text))?;
    let mut content = content(&args.path, platform, output)?;
    let client = Client::open(data, IfAbsent::Refuse)?;
    if let Content::Image(regular) = &content {
        let health: Health = client.get("/health")?;
        let (size, most) = (regular.look.size, health.image_bytes_max);
        if size > most {
            return Err(Failure::failed(format!("the image has {size} bytes; the most is {most}"))
                .hint("`image_bytes_max` in docs/configuration.md is the limit"));
        }
    }
    let wanted = ReleaseWanted {
        owner: args.owner.to_string(),
        device: args.device.map(|device| device.to_string()),
        all: args.all.then_some(true),
        version: args.version.clone(),
        platform: args.platform.clone(),
        env_hash: args.env_hash.clone(),
        kind: None,
        sha256: Some(upload::sha256(&mut content)?),
        source: None,
        unregistered: None,
    };
    let mut published = upload::publish(&client, content, &wanted, output)?;
    for warning in std::mem::take(&mut published.warnings) {
        output.note(&format!("warning: {warning}"));
    }
    output.show(&published, |published| describe(published, data, args))
}

/// What PATH holds for `platform`.
fn content(path: &Path, platform: &Platform, output: Output) -> Result<Content, Failure> {
    // Links on the way to what the operator names are the operator's.
    let path = fs::canonicalize(path)
        .map_err(|error| Failure::not_found(format!("cannot read {}: {error}", path.display())))?;
    match (&platform.form, path.is_dir()) {
        (Form::Image { names, .. }, true) => {
            let directory = Directory::open(&path)?;
            for name in *names {
                if let Some(regular) = directory.file(OsStr::new(name))? {
                    return Ok(Content::Image(regular));
                }
            }
            let error = format!("there is no {} in {}", names.join(" or "), path.display());
            Err(Failure::not_found(error).hint("name the image itself"))
        }
        (Form::Files { .. }, true) => {
            let bundle = bundle::render(&Directory::open(&path)?, platform)?;
            for name in &bundle.left_out {
                output.note(&format!("left out: {}", name.display()));
            }
            Ok(Content::Bundle(bundle.json))
        }
        (Form::Image { .. } | Form::Files { .. }, false) => {
            let mut regular = file(&path)?;
            let name = path.file_name().unwrap_or_default();
            if !platform.has(name) {
                return Ok(Content::Image(regular));
            }
            let bytes = regular.read(bundle::BUNDLE_BYTES_MAX)?;
            Ok(Content::Bundle(bundle::render_one(name, bytes)?))
        }
    }
}

fn file(path: &Path) -> Result<Regular, Failure> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::failed(format!("{} is no file", path.display())));
    };
    let regular = Directory::open(parent)?.file(name)?;
    regular.ok_or_else(|| Failure::not_found(format!("there is no {}", path.display())))
}

fn describe(published: &Published, data: &Path, args: &cli::Publish) -> String {
    let offered = match published.devices {
        0 if args.all => {
            "none of those that have checked in; later ones of this platform".to_owned()
        }
        0 => "none now: what it reports is as new".to_owned(),
        1 => "1 will be offered it".to_owned(),
        n => format!("{n} will be offered it"),
    };
    let mut text = pairs(&[
        ("release", published.release.clone()),
        ("version", published.version.clone()),
        ("platform", published.platform.clone()),
        ("size", format!("{} bytes", published.size)),
        ("sha256", published.sha256.clone()),
        ("md5", published.md5.clone()),
        ("devices", offered),
    ]);
    if published.waiting > 0 {
        let udid = args.device.map_or_else(|| "UDID".to_owned(), |device| device.to_string());
        text.push_str(&format!(
            "\n{} of them only once auto-update is on, or forced:\n  \
             otter device set {udid} --auto-update on --data {}",
            published.waiting,
            shell_word(data)
        ));
    }
    text
}

/// A path as one word of a shell.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        for (path, word) in [
            ("./otter-data", "./otter-data"),
            ("/a b", "'/a b'"),
            ("/it's", r"'/it'\''s'"),
            ("/$x", "'/$x'"),
            ("~/x", "'~/x'"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}
