//! The `registration` of a check-in: its fields, and what of them is kept (WIRE.md 1.1).

use std::borrow::Cow;

use rapidhash::v3::rapidhash_v3;

use crate::api::Scratch;
use crate::api::fields::Field;
use crate::id::{Alias, Mac};
use crate::json::{Invalid, Reader};
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
        let mut empty = true;
        let mut reader = Reader::new(body, depth_max)?;
        reader.members(|reader, key| {
            if !key.is("registration") {
                return reader.value().map(drop);
            }
            if seen {
                return Err(Invalid);
            }
            seen = true;
            reader.members(|reader, key| {
                empty = false;
                let value = reader.value()?;
                match key.plain().and_then(Name::parse) {
                    Some(name) => self.values[name as usize].keep(value),
                    None => Ok(()),
                }
            })
        })?;
        reader.end()?;
        // A MAC of another type is no MAC; `ack` may be anything; the rest must be scalar.
        let nested = |name: &Name| matches!(self.of(*name), Field::Nested);
        let bad =
            Name::ALL.iter().any(|name| !matches!(name, Name::Mac | Name::Ack) && nested(name));
        let long = [Name::Version, Name::Platform, Name::EnvHash].iter().any(|name| {
            self.of(*name).text().is_some_and(|text| text.raw().len() > SHORT_BYTES_MAX)
        });
        if empty || bad || long { Err(Invalid) } else { Ok(()) }
    }

    pub(super) fn of(&self, name: Name) -> Field<'a> {
        self.values[name as usize]
    }

    /// Two check-ins with equal digests keep the same facts, but for the radio's moods: where
    /// there are none in `body`, which these fields were read from, it is the body's own digest.
    pub(super) fn digest(&self, body: &[u8]) -> u64 {
        let is_absent = |name: Name| matches!(self.of(name), Field::Absent);
        if Name::VOLATILE.into_iter().all(is_absent) {
            return rapidhash_v3(body);
        }
        let lasting = Name::ALL.iter().filter(|name| !Name::VOLATILE.contains(name));
        lasting.fold(0_u64, |digest, name| {
            let value = self.of(*name).text();
            let value = value.map_or(*name as u64, |text| rapidhash_v3(text.raw().as_bytes()));
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
                    Cow::Owned(text.raw().to_uppercase())
                }
                Some(text) => Cow::Borrowed(text.raw()),
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
    start: u32,
    end: u32,
}

impl Place {
    /// Where a field's text lies in `body`, of which it is a slice.
    pub(super) fn of(field: Field<'_>, body: &[u8]) -> Self {
        let Some(text) = field.text().map(|text| text.raw()) else { return Self::default() };
        let start = text.as_ptr().addr().wrapping_sub(body.as_ptr().addr());
        match (u32::try_from(start), u32::try_from(start.wrapping_add(text.len()))) {
            (Ok(start), Ok(end)) if end as usize <= body.len() => Self { start, end },
            _ => Self::default(),
        }
    }

    pub(super) fn bytes(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub(super) fn text(self, scratch: &Scratch) -> Option<&str> {
        std::str::from_utf8(self.bytes(&scratch.text)).ok().filter(|text| !text.is_empty())
    }
}

macro_rules! names {
    ($($name:ident = $key:literal),* $(,)?) => {
        /// The fields of a `registration` that Otter knows (WIRE.md 1.1).
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(super) enum Name { $($name),* }

        impl Name {
            const ALL: &[Self] = &[$(Self::$name),*];

            fn parse(key: &str) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
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

    /// Not kept apart already.
    fn is_fact(self) -> bool {
        !matches!(self, Self::Owner | Self::Udid | Self::Mac | Self::Ack)
    }
}

/// Odd, and its bits look random: spreads each value over the whole digest.
const DIGEST_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Longest version, platform and environment hash that is taken, in bytes as they are sent: many
/// times what libraries send, and little enough to be kept in memory for every device.
const SHORT_BYTES_MAX: usize = 128;
