//! The other end of TLS beneath a connection under watch: what is handed in is sealed here, what is
//! taken is opened here, and what is opened is held to the same laws.

use otter_protocol::Token;

use super::authority::Authority;
use crate::tls::{Beneath, Client, End};

/// The client of one connection, and where in its answers it is.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) client: Client,
    pub(super) ends_by_alert: bool,
    /// The client has said its end: it says nothing more.
    has_ended: bool,
    /// The head of an answer, as far as it is there.
    head: Vec<u8>,
    body: Body,
}

/// What is left of the body of an answer.
#[derive(Debug)]
enum Body {
    /// Bytes that are no image.
    Other { left: u64 },
    /// An image, from here on.
    Image { offset: u64, left: u64 },
}

impl Tunnel {
    pub(super) fn new(beneath: &Beneath) -> Self {
        Self {
            client: Client::new(beneath.client.clone()),
            ends_by_alert: beneath.ends_by_alert,
            has_ended: false,
            head: Vec::new(),
            body: Body::Other { left: 0 },
        }
    }

    /// The ciphertext of what the peer says.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        if !self.has_ended {
            self.client.say(plain);
        }
        self.client.take_wire()
    }

    /// The ciphertext of the peer's end.
    pub(super) fn seal_end(&mut self) -> Vec<u8> {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.client.say_end();
        }
        self.client.take_wire()
    }

    /// Ciphertext that the socket took: how many bytes of plaintext came out, and the tokens whose
    /// tails began with them.
    pub(super) fn open(&mut self, wire: &[u8], authority: &mut Authority) -> (usize, Vec<Token>) {
        let before = self.client.heard_bytes();
        self.client.hear(wire);
        let fresh = self.client.heard()[before..].to_vec();
        (fresh.len(), self.follow(&fresh, authority))
    }

    /// Has the server said that it is over, and meant it?
    pub(super) fn is_meant_end(&self) -> bool {
        self.client.end() == Some(&End::Meant)
    }

    /// Follows the answers, and holds what is image in them to laws 8 and 9.
    fn follow(&mut self, mut plain: &[u8], authority: &mut Authority) -> Vec<Token> {
        let mut tails = Vec::new();
        while !plain.is_empty() {
            // The answer to HEAD has no body: the next one follows.
            let is_next = self.head.is_empty() && plain.starts_with(b"HTTP/1.1 ");
            match &mut self.body {
                Body::Image { offset, left } if *left > 0 && !is_next => {
                    let (piece, rest) = plain.split_at(shorter(plain, *left));
                    authority.check_bytes(*offset, piece);
                    tails.extend(authority.image_left(*offset, piece.len() as u64));
                    (*offset, *left) = (*offset + piece.len() as u64, *left - piece.len() as u64);
                    plain = rest;
                }
                Body::Other { left } if *left > 0 && !is_next => {
                    let skipped = shorter(plain, *left);
                    *left -= skipped as u64;
                    plain = &plain[skipped..];
                }
                Body::Image { .. } | Body::Other { .. } => plain = self.read_head(plain, authority),
            }
        }
        tails
    }

    /// Reads on in the head of an answer; what follows it.
    fn read_head<'a>(&mut self, plain: &'a [u8], authority: &Authority) -> &'a [u8] {
        self.body = Body::Other { left: 0 };
        for (index, byte) in plain.iter().enumerate() {
            self.head.push(*byte);
            if self.head.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).into_owned();
                self.body = body_of(&head, authority);
                return &plain[index + 1..];
            }
        }
        &[]
    }
}

fn shorter(plain: &[u8], left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(plain.len())
}

/// What follows this head. An image is what is as long as the one that may leave.
fn body_of(head: &str, authority: &Authority) -> Body {
    let left = field(head, "Content-Length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let Some(image_bytes) = authority.image_bytes() else { return Body::Other { left } };
    if head.starts_with("HTTP/1.1 200 ") && left == image_bytes {
        return Body::Image { offset: 0, left };
    }
    let range = field(head, "Content-Range").filter(|_| head.starts_with("HTTP/1.1 206 "));
    let offset = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    match offset.and_then(|offset| offset.parse().ok()) {
        Some(offset) => Body::Image { offset, left },
        None => Body::Other { left },
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
