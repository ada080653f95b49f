//! Operations of the function that runs inside of Redis (otter.lua): what is sent.

use std::borrow::Cow;

use super::keys::Key;

/// One operation. All its keys are in one hash slot.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) keys: Vec<Key>,
    pub(super) args: Vec<Arg>,
}

/// An argument: always a text.
pub(super) type Arg = Cow<'static, str>;

/// By which of the functions an operation is called. A Redis that is full or cannot write still
/// answers the one that only reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Read,
    Write,
    /// A write whose reply waits until replicas have it, where that is wished.
    Replicated,
}

impl Op {
    pub(super) fn read(name: &'static str, keys: impl Into<Vec<Key>>) -> Self {
        Self { kind: Kind::Read, name, keys: keys.into(), args: Vec::new() }
    }

    pub(super) fn write(name: &'static str, keys: impl Into<Vec<Key>>) -> Self {
        Self { kind: Kind::Write, name, keys: keys.into(), args: Vec::new() }
    }

    /// The same, answered only when the replicas have it.
    pub(super) fn replicated(self) -> Self {
        Self { kind: Kind::Replicated, ..self }
    }

    /// One more argument.
    pub(super) fn arg(mut self, arg: impl Into<Arg>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// One more argument that may be absent.
    pub(super) fn optional(self, arg: Option<&str>) -> Self {
        self.arg(arg.map_or(Cow::Borrowed(""), |text| Cow::Owned(format!("={text}"))))
    }

    /// One more argument that says yes or no.
    pub(super) fn flag(self, flag: bool) -> Self {
        self.arg(if flag { "1" } else { "0" })
    }
}
