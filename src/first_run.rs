//! What a fresh store is given: an owner, a key, a sample image, and lines to try them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use otter_store::Operator;

use crate::failure::{Context, Failure};
use crate::publish::shell_word;

/// Makes them if the store has no owner yet, and returns the text to show once.
pub(crate) fn welcome(
    operator: &Operator,
    data: &Path,
    socket: &Path,
    url: &str,
) -> Result<Option<String>, Failure> {
    if !operator.owners()?.is_empty() {
        return Ok(None);
    }
    let owner = operator.create_owner(None)?;
    let key = operator.create_key(&owner, KEY_ALIAS)?;
    let sample = data.join(SAMPLE);
    fs::write(&sample, sample_image())
        .context(|| format!("cannot write the sample image {}", sample.display()))?;
    let lines = Lines {
        owner: owner.to_string(),
        key: String::from_utf8_lossy(&key.key.text()).into_owned(),
        url: url.to_owned(),
        socket: socket.to_owned(),
        sample,
        downloaded: data.join(DOWNLOADED),
    };
    Ok(Some(lines.text()))
}

struct Lines {
    owner: String,
    key: String,
    url: String,
    socket: PathBuf,
    sample: PathBuf,
    downloaded: PathBuf,
}

impl Lines {
    fn text(&self) -> String {
        let Self { owner, key, url, .. } = self;
        let socket = shell_word(&self.socket);
        let mut sample = OsString::from("@");
        sample.push(&self.sample);
        let sample = shell_word(Path::new(&sample));
        let downloaded = shell_word(&self.downloaded);
        let admin = format!("curl -sS -w '\\n' --unix-socket {socket}");
        // Nobody knows whether curl could trust the certificate.
        let check = if url.starts_with("https:") { " -k" } else { "" };
        let device = format!(
            "curl -sS{check} -w '\\n' --noproxy '*' -H 'Authentication: {key}' \
             -H 'Content-Type: application/json'"
        );
        let check_in = format!(
            "{device} -d '{{\"registration\":{{\"mac\":\"{MAC}\",\"owner\":\"{owner}\",\
             \"udid\":\"{UDID}\",\"alias\":\"sample\",\"version\":\"1.0.0\",\
             \"firmware\":\"sample:1.0.0\",\"platform\":\"arduino\"}}}}' {url}/device/register"
        );
        let publish = format!(
            "{admin} --data-binary {sample} 'http://otter/releases?owner={owner}&device={UDID}\
             &version=1.0.1&platform=arduino'"
        );
        let switch =
            format!("{admin} -X PATCH -d '{{\"auto_update\":true}}' http://otter/devices/{UDID}");
        let download = format!(
            "{device} -d '{{\"use\":\"ott\",\"owner\":\"{owner}\",\"udid\":\"{UDID}\",\
             \"mac\":\"{MAC}\"}}' {url}/device/firmware \
             | sed -n 's/.*\"ott\":\"\\([0-9a-f]*\\)\".*/\\1/p' \
             | xargs -I %OTT% curl -sS{check} -w '%{{http_code}}, %{{size_download}} bytes\\n' \
             --noproxy '*' -o {downloaded} '{url}/device/firmware?ott=%OTT%'"
        );
        format!(
            "\n\
             This store is fresh. It was given an owner and an API key, shown only now:\n\
             \n  owner    {owner}\n  API key  {key}\n\n\
             Play a device; paste these lines one by one into sh or bash:\n\n\
             # 1. It checks in and is registered\n{check_in}\n\
             # 2. You publish a sample image for it\n{publish}\n\
             # 3. You let it update by itself\n{switch}\n\
             # 4. It checks in again, and is offered the update with a one-time token\n{check_in}\n\
             # 5. It asks for a token and downloads the image, to {downloaded}\n{download}\n"
        )
    }
}

/// It begins like an image for an ESP chip; the rest only must not be all alike.
fn sample_image() -> Vec<u8> {
    let mut state: u32 = 1;
    let mut image: Vec<u8> = (0..SAMPLE_BYTES)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    image[0] = ESP_MAGIC;
    image
}

const KEY_ALIAS: &str = "first key";
/// The sample image in the data directory.
const SAMPLE: &str = "sample.bin";
const SAMPLE_BYTES: usize = 64 << 10;
/// The first byte of an image for an ESP chip.
const ESP_MAGIC: u8 = 0xE9;
/// Where the last line saves the image.
const DOWNLOADED: &str = "downloaded.bin";
const UDID: &str = "5ccf7fee-1337-4000-8000-000000000001";
const MAC: &str = "5CCF7FEE1337";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_five_lines_and_paths_are_quoted() {
        let lines = Lines {
            owner: "o".repeat(64),
            key: "k".repeat(64),
            url: "http://127.0.0.1:7442".to_owned(),
            socket: "/it's here/admin.sock".into(),
            sample: "/it's here/sample.bin".into(),
            downloaded: "/it's here/downloaded.bin".into(),
        };
        let text = lines.text();
        assert_eq!(text.lines().filter(|line| line.starts_with("curl ")).count(), 5);
        assert!(text.contains(r"--unix-socket '/it'\''s here/admin.sock'"), "{text}");
        assert!(text.contains(r"--data-binary '@/it'\''s here/sample.bin'"), "{text}");
    }
}
