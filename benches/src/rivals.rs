//! Servers of our own to compare with: each does as little as can be right, in one thread.
//!
//! They run in processes of their own, as what they are compared with does: a program passes its
//! words on to [`serve`], and [`crate::Contestant::Rival`] starts that program.

mod floor;
mod fred;
mod hyper;
mod images;
mod redis_floor;

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Result, bail};

/// Serves on a free port of loopback until the process ends; prints `ready http=<address>`.
///
/// | words | who |
/// |---|---|
/// | `floor` | takes whatever arrives at once as one request, and answers with a constant |
/// | `floor whole` | the same, but reads a request to its end, by its `Content-Length` |
/// | `floor close` | the same as `floor`, and closes the connection |
/// | `floor redis URL` | also a `GET` and a `SET` each, those of a turn in one write |
/// | `floor images` | ranges of the files in its folder, below `/images/`, from memory |
/// | `hyper` | hyper and `serde_json`: reads a check-in into a typed struct, answers with JSON |
/// | `fred URL` | hyper and fred: a `GET` and a `SET` for each check-in |
///
/// # Errors
/// If the words are others, or something that is needed cannot be had.
pub fn serve<S: AsRef<str>>(words: &[S]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words[..] {
        ["floor"] => floor::serve(floor::Manner::Blind),
        ["floor", "whole"] => floor::serve(floor::Manner::Whole),
        ["floor", "close"] => floor::serve(floor::Manner::Closing),
        ["floor", "redis", url] => redis_floor::serve(url),
        ["floor", "images"] => images::serve(),
        ["hyper"] => hyper::serve(),
        ["fred", url] => fred::serve(url),
        _ => bail!("there is no such rival: {words:?}"),
    }
}

fn say_ready(address: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready http={address}")?;
    Ok(out.flush()?)
}

/// What [`REPLY`] travels in.
fn whole_reply() -> Vec<u8> {
    let length = REPLY.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    format!("{head}{length}\r\n\r\n{REPLY}").into_bytes()
}

/// What is kept of a check-in where there is a Redis.
static KEPT: [u8; 418] = [b'x'; 418];
/// A constant of the length of a check-in's reply.
const REPLY: &str = concat!(
    r#"{"registration":{"success":true,"status":"OK","auto_update":false,"owner":"#,
    r#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","alias":"otter-00ab01","#,
    r#""mesh_ids":[],"udid":"5ccf7fee-1337-4000-8000-00000000ab01","timestamp":1795478791}}"#,
);
