//! The `registration` of a check-in: its fields, and what of them is kept (docs/wire.md 1.1).

use std::borrow::Cow;

use rapidhash::v3::rapidhash_v3;

use crate::api::Scratch;
use crate::api::fields::Field;
use crate::api::guard::tells_failure;
use crate::id::{Alias, Mac};
use crate::json::{Invalid, Kind, Reader, Value};
use crate::query::CheckIn;

/// The fields of a `registration`, by [`Name`].
#[derive(Default)]
pub(super) struct Fields<'a> {
    values: [Field<'a>; Name::ALL.len()],
}

impl<'a> Fields<'a> {
    /// Reads a check-in's body: an object with a `registration` object that is not empty.
    pub(super) fn read(&mut self, body: &'a [u8], depth_max: usize) -> Result<(), Invalid> {
        let mut seen = false;
        let mut reader = Reader::new(body, depth_max)?;
        reader.members(|reader, key| {
            if !key.is("registration") {
                return reader.value().map(drop);
            }
            if seen {
                return Err(Invalid);
            }
            seen = true;
            *reader = self.read_registration(reader.clone())?;
            Ok(())
        })?;
        reader.end()?;
        if seen { Ok(()) } else { Err(Invalid) }
    }

    /// Takes the reader by value, as the reader's own functions do (see [`Reader`]).
    fn read_registration(&mut self, mut reader: Reader<'a>) -> Result<Reader<'a>, Invalid> {
        let mut empty = true;
        reader.members(|reader, key| {
            empty = false;
            let value = reader.value()?;
            match key.plain().and_then(Name::parse) {
                Some(name) if name.admits(value) => self.values[name as usize].keep(value),
                Some(_) => Err(Invalid),
                None => Ok(()),
            }
        })?;
        if empty { Err(Invalid) } else { Ok(reader) }
    }

    pub(super) fn of(&self, name: Name) -> &Field<'a> {
        &self.values[name as usize]
    }

    /// Two check-ins with equal digests keep the same facts, but for the radio's moods and the
    /// words of a failed update: where there are none in `body`, which these fields were read
    /// from, it is the body's own digest.
    pub(super) fn digest(&self, body: &[u8]) -> u64 {
        let is_absent = |name: Name| self.of(name).is_absent();
        let failed = self.of(Name::Status).text().is_some_and(|text| tells_failure(text.raw()));
        if !failed && Name::VOLATILE.into_iter().all(is_absent) {
            return rapidhash_v3(body);
        }
        let lasting = Name::ALL.iter().filter(|name| !Name::VOLATILE.contains(name));
        lasting.fold(0_u64, |digest, name| {
            let value = match self.of(*name).text() {
                // An updater in its loop finds other words in each turn (docs/simulation.md).
                Some(_) if failed && *name == Name::Status => FAILED_DIGEST,
                Some(text) => rapidhash_v3(text.raw()),
                None => *name as u64,
            };
            (digest.rotate_left(23) ^ value).wrapping_mul(DIGEST_FACTOR)
        })
    }

    pub(super) fn check_in(
        &self,
        mac: Option<Mac>,
        digest: u64,
        told_auto_update: bool,
    ) -> CheckIn {
        let owned = |name| self.of(name).text().map(|text| Box::from(text.decode()));
        let alias = self.of(Name::Alias).text().map(|text| text.decode());
        let platform = self.of(Name::Platform).text().map(|text| text.decode().to_lowercase());
        CheckIn {
            mac,
            alias: alias.as_deref().and_then(Alias::clean),
            version: owned(Name::Version),
            platform: platform.map(Into::into),
            env_hash: owned(Name::EnvHash),
            facts: self.facts().into(),
            digest,
            told_auto_update,
        }
    }

    /// The stored fields as one JSON object with string values, in the order of [`Name`].
    fn facts(&self) -> String {
        let mut facts = String::from("{");
        for name in Name::ALL.iter().filter(|name| name.is_fact()) {
            let value = match self.of(*name).text() {
                Some(text) if *name == Name::Fcid && text.plain().is_some() => {
                    Cow::Owned(as_text(text.raw()).to_uppercase())
                }
                Some(text) => Cow::Borrowed(as_text(text.raw())),
                None if *name == Name::Fcid => Cow::Borrowed("000000000000"),
                None => continue,
            };
            let comma = if facts.len() > 1 { "," } else { "" };
            facts.extend([comma, "\"", name.key(), "\":\"", &*value, "\""]);
        }
        facts.push('}');
        facts
    }
}

/// Where a text stands in [`Scratch::text`]; empty if it does not.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    start: usize,
    end: usize,
}

impl Place {
    /// Where a field's text lies in `body`, of which it is a slice.
    #[inline]
    pub(super) fn of(field: &Field<'_>, body: &[u8]) -> Self {
        let Some(text) = field.text().map(|text| text.raw()) else { return Self::default() };
        let start = text.as_ptr().addr().wrapping_sub(body.as_ptr().addr());
        Self { start, end: start.wrapping_add(text.len()) }
    }

    pub(super) fn bytes(self, text: &[u8]) -> &[u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn text(self, scratch: &Scratch) -> Option<&str> {
        Some(as_text(self.bytes(&scratch.text))).filter(|text| !text.is_empty())
    }
}

macro_rules! names {
    ($($name:ident = $key:literal),* $(,)?) => {
        /// The fields of a `registration` that Otter knows (docs/wire.md 1.1).
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(super) enum Name { $($name),* }

        impl Name {
            const ALL: &[Self] = &[$(Self::$name),*];

            #[inline]
            fn parse(key: &[u8]) -> Option<Self> {
                $(if key == $key.as_bytes() {
                    return Some(Self::$name);
                })*
                None
            }

            fn key(self) -> &'static str {
                match self {
                    $(Self::$name => $key),*
                }
            }
        }
    };
}

names! {
    Mac = "mac",
    Owner = "owner",
    Udid = "udid",
    Version = "version",
    Firmware = "firmware",
    EnvHash = "env_hash",
    Alias = "alias",
    Platform = "platform",
    Status = "status",
    Lat = "lat",
    Lon = "lon",
    Rssi = "rssi",
    Snr = "snr",
    Station = "station",
    Commit = "commit",
    Checksum = "checksum",
    Push = "push",
    Fcid = "fcid",
    TimezoneOffset = "timezone_offset",
    TimezoneAbbr = "timezone_abbr",
    Ack = "ack",
}

impl Name {
    /// Change from one check-in to the next without meaning: kept with the next real change.
    const VOLATILE: [Self; 2] = [Self::Rssi, Self::Snr];

    /// May it hold this? A MAC of another type is no MAC; `ack` may be anything; the rest must be
    /// scalar, and short where it is kept in memory.
    #[inline]
    fn admits(self, value: Value<'_>) -> bool {
        match value.kind {
            Kind::Object | Kind::Array => matches!(self, Self::Mac | Self::Ack),
            _ if value.raw.len() <= SHORT_BYTES_MAX => true,
            Kind::Text | Kind::Escaped | Kind::Number | Kind::Bool | Kind::Null => {
                !matches!(self, Self::Version | Self::Platform | Self::EnvHash)
            }
        }
    }

    /// Not kept apart already.
    fn is_fact(self) -> bool {
        !matches!(self, Self::Owner | Self::Udid | Self::Mac | Self::Ack)
    }
}

/// Text of a body that was read, so it is UTF-8.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Odd, and its bits look random: spreads each value over the whole digest.
const DIGEST_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Stands for whatever a failed updater says.
const FAILED_DIGEST: u64 = 0x5bd1_e995_c2b2_ae3d;
/// Longest version, platform and environment hash that is taken, in bytes as they are sent: many
/// times what libraries send, and little enough to be kept in memory for every device.
const SHORT_BYTES_MAX: usize = 128;
