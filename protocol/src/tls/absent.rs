//! TLS where the feature `tls` is off: there is no value of it.

use std::convert::Infallible;

use crate::buffers::Buffers;
use crate::mandate::Mandate;
use crate::report::{Handshake, TlsFailure};

/// See `mod.rs`.
pub(crate) struct Tls(Infallible);

/// See `mod.rs`.
#[expect(dead_code, reason = "nothing is received without TLS")]
pub(crate) enum Received<'a> {
    Opened(Option<Mandate>),
    Plain(&'a [u8]),
    Eof,
    Failed,
    Probed,
    Http,
}

impl Tls {
    pub(crate) fn receive(&mut self, _: &[u8], _: &Buffers, _: impl FnMut(Received<'_>)) {
        match self.0 {}
    }

    pub(crate) fn seal(&mut self, _: &[u8], _: &Buffers) -> Option<()> {
        match self.0 {}
    }

    pub(crate) fn finish(&mut self, _: &Buffers) {
        match self.0 {}
    }

    pub(crate) fn silence(&mut self, _: &Buffers) {
        match self.0 {}
    }

    pub(crate) fn pending(&self) -> &[u8] {
        match self.0 {}
    }

    pub(crate) fn advance(&mut self, _: usize, _: &Buffers) -> usize {
        match self.0 {}
    }

    pub(crate) fn owed(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn disown(&mut self) {
        match self.0 {}
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn is_open(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn poll_handshake(&mut self) -> Option<Handshake> {
        match self.0 {}
    }

    pub(crate) fn give_up(&mut self, _: TlsFailure) {
        match self.0 {}
    }
}
