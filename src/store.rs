//! Where facts are kept: the store that the settings name, for the server and for commands.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::str::FromStr;

use otter_store::{Embedded, Memory, OpenError, Operator, Redis};
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::devices::{DeviceServer, Devices};
use crate::failure::{Context, Failure};

/// Which store.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum StoreChoice {
    /// In the data directory.
    Embedded,
    /// In memory, forgotten at the end.
    Memory,
    /// In Redis, by its URL.
    Redis(String),
}

impl FromStr for StoreChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "memory" => Ok(Self::Memory),
            url if url.contains("://") => Ok(Self::Redis(url.to_owned())),
            _ => {
                Err("expected embedded, memory, or a URL such as redis://127.0.0.1:6379".to_owned())
            }
        }
    }
}

impl TryFrom<String> for StoreChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StoreChoice> for String {
    fn from(choice: StoreChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Memory => "memory",
            Self::Redis(url) => url,
        })
    }
}

/// An open store.
pub(crate) enum AnyStore {
    Embedded(Embedded),
    Memory(Memory),
    Redis(Redis),
}

impl AnyStore {
    /// Opens the store that the settings name, and makes the data directory if there is none.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(data: &Path, settings: &Settings) -> Result<Self, OpenError> {
        Self::open_as(data, settings, false)
    }

    /// The same, also if a copy into it was not finished.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open_to_fill(data: &Path, settings: &Settings) -> Result<Self, OpenError> {
        Self::open_as(data, settings, true)
    }

    fn open_as(data: &Path, settings: &Settings, unfinished: bool) -> Result<Self, OpenError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(data);
        made.map_err(|source| OpenError::Directory { path: data.to_owned(), source })?;
        match &settings.store {
            StoreChoice::Embedded => {
                let mut options = settings.embedded();
                options.unfinished = unfinished;
                Embedded::open(data, options).map(Self::Embedded)
            }
            StoreChoice::Memory => Memory::open(data, settings.memory()).map(Self::Memory),
            StoreChoice::Redis(url) => {
                let mut options = settings.redis(url);
                options.unfinished = unfinished;
                Redis::open(data, options).map(Self::Redis)
            }
        }
    }

    /// What an operator should know of it.
    pub(crate) fn warnings(&self) -> &[String] {
        match self {
            Self::Embedded(_) | Self::Memory(_) => &[],
            Self::Redis(store) => store.warnings(),
        }
    }

    pub(crate) fn operator(&self) -> Operator {
        match self {
            Self::Embedded(store) => store.operator(),
            Self::Memory(store) => store.operator(),
            Self::Redis(store) => store.operator(),
        }
    }

    pub(crate) fn serve(&self, server: DeviceServer) -> Result<Devices, Failure> {
        match self {
            Self::Embedded(store) => server.spawn(|_, wake| store.store(wake)),
            Self::Memory(store) => server.spawn(|_, wake| store.store(wake)),
            Self::Redis(store) => server.spawn(|_, wake| store.store(wake)),
        }
        .context(|| "cannot start the workers".to_owned())
    }

    pub(crate) fn close(self) {
        match self {
            Self::Embedded(store) => store.close(),
            Self::Memory(_) => {}
            Self::Redis(store) => store.close(),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let text = error.to_string();
        match error {
            OpenError::Locked { .. } | OpenError::Unfinished { .. } => Self::conflict(text),
            OpenError::RedisUrl { .. } => Self::usage(text)
                .hint("docs/redis.md has all its forms; see --store or OTTER_STORE"),
            OpenError::Origin { .. } => Self::usage(text).hint("see docs/configuration.md"),
            OpenError::Redis { .. } => Self::unavailable(text)
                .hint("is it running, and is the URL of --store or OTTER_STORE right?"),
            OpenError::Directory { .. }
            | OpenError::Foreign { .. }
            | OpenError::Newer { .. }
            | OpenError::Damaged { .. }
            | OpenError::Database { .. }
            | OpenError::Thread { .. }
            | _ => Self::failed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        for text in
            ["embedded", "memory", "redis://127.0.0.1:6379", "rediss-cluster://a:1?node=b:2"]
        {
            assert_eq!(text.parse::<StoreChoice>().map(String::from), Ok(text.to_owned()));
        }
        for text in ["", "redis", "sqlite", "127.0.0.1:6379"] {
            let error = text.parse::<StoreChoice>().expect_err(text);
            assert!(error.contains("redis://"), "{error}");
        }
    }
}
