//! Sending an image or a bundle to the admin API.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::Method;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use indicatif::{ProgressBar, ProgressStyle};
use otter_protocol::Kind;
use ring::digest::{Context as Digest, SHA256};

use crate::beneath::Regular;
use crate::client::Client;
use crate::deploy::Content;
use crate::failure::{Context as _, Failure};
use crate::output::Output;
use crate::shapes::{Published, ReleaseWanted};

/// The SHA-256 of `content`, in hexadecimal. Of an image, all of it is read.
pub(crate) fn sha256(content: &mut Content) -> Result<String, Failure> {
    let mut digest = Digest::new(&SHA256);
    match content {
        Content::Bundle(json) => digest.update(json),
        Content::Image(regular) => {
            let path = regular.path.display().to_string();
            let reading = || format!("cannot read {path}");
            regular.file.seek(SeekFrom::Start(0)).context(reading)?;
            let mut left = regular.look.size;
            let mut buffer = vec![0; READ_BYTES];
            while left > 0 {
                let n = regular.file.read(&mut buffer).context(reading)?;
                if n == 0 || n as u64 > left {
                    return Err(changed(regular));
                }
                digest.update(&buffer[..n]);
                left -= n as u64;
            }
            if !regular.unchanged() {
                return Err(changed(regular));
            }
        }
    }
    Ok(digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Publishes `content`, whose SHA-256 `wanted` names: anything else is refused by the other side.
pub(crate) fn publish(
    client: &Client,
    content: Content,
    wanted: &ReleaseWanted,
    output: Output,
) -> Result<Published, Failure> {
    let mut wanted = wanted.clone();
    wanted.kind = Some(match content.kind() {
        Kind::Image => "image".to_owned(),
        Kind::Bundle => "bundle".to_owned(),
    });
    let target = format!("/releases?{}", to_query(&wanted)?);
    let body = match content {
        Content::Bundle(json) => Body::from(json),
        Content::Image(regular) => {
            let bytes = regular.look.size;
            let mut file = regular.file;
            file.seek(SeekFrom::Start(0)).context(|| "cannot read the image again".to_owned())?;
            let bar = if output.draws() { bar(bytes) } else { ProgressBar::hidden() };
            Body::new(Upload { file, left: bytes, bar })
        }
    };
    client.call(Method::POST, &target, body)
}

/// A file on its way, as a body of known length.
struct Upload {
    file: File,
    left: u64,
    bar: ProgressBar,
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            self.bar.finish_and_clear();
            return Poll::Ready(None);
        }
        let mut buffer = vec![0; READ_BYTES.min(usize::try_from(self.left).unwrap_or(READ_BYTES))];
        // Blocks for a moment; nothing else runs on this thread.
        Poll::Ready(Some(match self.file.read(&mut buffer) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
            Ok(n) => {
                buffer.truncate(n);
                self.left -= n as u64;
                self.bar.inc(n as u64);
                Ok(Frame::data(Bytes::from(buffer)))
            }
            Err(error) => Err(error),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn changed(regular: &Regular) -> Failure {
    Failure::conflict(format!("{} changed while it was read", regular.path.display()))
        .hint("try again once it is written")
}

/// `name=value&..` with everything escaped that could mean something else.
fn to_query(wanted: &ReleaseWanted) -> Result<String, Failure> {
    let serde_json::Value::Object(fields) = serde_json::to_value(wanted)
        .map_err(|error| Failure::internal(format!("cannot render the request: {error}")))?
    else {
        return Err(Failure::internal("a request is no object"));
    };
    let pairs = fields.iter().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={}", escape(&text))
    });
    Ok(pairs.collect::<Vec<_>>().join("&"))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

const READ_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escape("repo:v1.2+b c&d=\u{e9}"), "repo%3Av1.2%2Bb%20c%26d%3D%C3%A9");
    }
}
