//! Settings: defaults, then a file, then the environment, then flags.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use otter_mio::Options;
use otter_protocol::{Config, Security, StatusMode};
use otter_store::{EmbeddedOptions, ImageOptions, MemoryOptions, RedisOptions};
use serde::{Deserialize, Serialize};

use self::lists::one_or_more;
use self::mistakes::{explain, invalid};
use crate::cli::{LogFormat, RuntimeKind, Serve};
use crate::failure::Failure;
use crate::listen::{Listen, TlsListen};
use crate::secret::Secret;
use crate::store::StoreChoice;
use crate::tls::SESSIONS_MAX;

mod lists;
mod mistakes;

/// Every setting there is. `docs/configuration.md` says what each means; a test keeps the two
/// alike.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) listen: Listen,
    #[serde(deserialize_with = "one_or_more")]
    pub(crate) tls_listen: Vec<TlsListen>,
    #[serde(deserialize_with = "one_or_more")]
    pub(crate) tls_cert: Vec<PathBuf>,
    #[serde(deserialize_with = "one_or_more")]
    pub(crate) tls_key: Vec<PathBuf>,
    pub(crate) tls_client_ca: Option<PathBuf>,
    tls_handshake_timeout_s: u64,
    pub(crate) tls_sessions_max: usize,
    pub(crate) workers: usize,
    pub(crate) runtime: RuntimeKind,
    pub(crate) store: StoreChoice,
    pub(crate) log_format: LogFormat,
    pub(crate) image_bytes_max: u64,
    port_shared: bool,
    connections_max: usize,
    backlog: i32,
    send_buffer_bytes: usize,
    receive_buffer_bytes: usize,
    turn_bytes_max: usize,
    drain_timeout_s: u64,

    accept_key_hash: bool,
    images: Option<PathBuf>,
    images_open_max: usize,
    image_origins: Vec<String>,
    pub(crate) image_listen: Option<SocketAddr>,
    pub(crate) image_secret: Option<Secret>,
    group_writes_max: usize,
    redis_ca: Option<PathBuf>,
    redis_timeout_ms: u64,
    token_replicas: u32,
    token_replicas_timeout_ms: u64,

    head_bytes_max: usize,
    headers_max: usize,
    target_bytes_max: usize,
    body_bytes_max: usize,
    chunk_line_bytes_max: usize,
    trailer_bytes_max: usize,
    json_depth_max: usize,
    pipelined_requests_max: u8,
    idle_timeout_s: u64,
    head_timeout_s: u64,
    body_timeout_s: u64,
    answer_timeout_ms: u64,
    retry_after_s: u32,
    send_window_s: u64,
    send_window_bytes_min: u64,
    transfer_timeout_s: u64,
    transfer_backlog_s: u64,
    transfer_backlog_bytes_min: u64,
    linger_timeout_ms: u64,
    linger_bytes_max: u32,
    status_mode: Statuses,
    thinx_get_200: bool,
    seen_resolution_s: u64,
    token_unused_s: u64,
    token_used_s: u64,
    offers_max: u8,
    failure_backoff_s: u64,
    public_url: Option<String>,
}

impl Settings {
    /// Settings for `otter serve` on the data directory `data`.
    pub(crate) fn for_serve(data: &Path, flags: &Serve) -> Result<Self, Failure> {
        let flags = Flags {
            listen: flags.listen,
            tls_listen: flags.tls_listen.clone(),
            tls_cert: flags.cert.clone(),
            tls_key: flags.key.clone(),
            workers: flags.workers,
            runtime: flags.runtime,
            store: flags.store.clone(),
            log_format: flags.log_format,
            config: flags.config.clone(),
        };
        let settings = Self::load(data, &flags)?;
        settings.check_listeners()?;
        Ok(settings)
    }

    /// Settings for a command that works on a stopped server's data directory.
    pub(crate) fn for_command(data: &Path) -> Result<Self, Failure> {
        let config = std::env::var_os(ENV_CONFIG).filter(|path| !path.is_empty());
        Self::load(data, &Flags { config: config.map(PathBuf::from), ..Flags::default() })
    }

    /// The core's settings.
    pub(crate) fn core(&self) -> Config {
        let mut core = Config::default();
        core.head_bytes_max = self.head_bytes_max;
        core.headers_max = self.headers_max;
        core.target_bytes_max = self.target_bytes_max;
        core.body_bytes_max = self.body_bytes_max;
        core.chunk_line_bytes_max = self.chunk_line_bytes_max;
        core.trailer_bytes_max = self.trailer_bytes_max;
        core.json_depth_max = self.json_depth_max;
        core.pipelined_requests_max = self.pipelined_requests_max;
        core.handshake_timeout = Duration::from_secs(self.tls_handshake_timeout_s);
        core.idle_timeout = Duration::from_secs(self.idle_timeout_s);
        core.head_timeout = Duration::from_secs(self.head_timeout_s);
        core.body_timeout = Duration::from_secs(self.body_timeout_s);
        core.answer_timeout = Duration::from_millis(self.answer_timeout_ms);
        core.retry_after_s = self.retry_after_s;
        core.send_window = Duration::from_secs(self.send_window_s);
        core.send_window_bytes_min = self.send_window_bytes_min;
        core.transfer_timeout = Duration::from_secs(self.transfer_timeout_s);
        core.transfer_backlog = Duration::from_secs(self.transfer_backlog_s);
        core.transfer_backlog_bytes_min = self.transfer_backlog_bytes_min;
        core.linger_timeout = Duration::from_millis(self.linger_timeout_ms);
        core.linger_bytes_max = self.linger_bytes_max;
        core.status_mode = match self.status_mode {
            Statuses::Thinx => StatusMode::Thinx,
            Statuses::Http => StatusMode::Http,
        };
        core.thinx_get_200 = self.thinx_get_200;
        core.seen_resolution = Duration::from_secs(self.seen_resolution_s);
        core.token_unused = Duration::from_secs(self.token_unused_s);
        core.token_used = Duration::from_secs(self.token_used_s);
        core.offers_max = self.offers_max;
        core.failure_backoff = Duration::from_secs(self.failure_backoff_s);
        core.public_url = self.public_url.as_deref().map(Arc::from);
        core
    }

    /// The driver's settings, to listen at all places in `listen`.
    pub(crate) fn driver(&self, listen: Vec<(SocketAddr, Security)>) -> Options {
        let mut options = Options::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        options.listen = listen;
        if self.workers > 0 {
            options.workers = self.workers;
        }
        options.port_shared = self.port_shared;
        options.connections_max = self.connections_max;
        options.backlog = self.backlog;
        options.send_buffer_bytes = self.send_buffer_bytes;
        options.receive_buffer_bytes = self.receive_buffer_bytes;
        options.turn_bytes_max = self.turn_bytes_max;
        options.drain_timeout = Duration::from_secs(self.drain_timeout_s);
        options.config = Arc::new(self.core());
        options
    }

    /// The embedded store's settings.
    pub(crate) fn embedded(&self) -> EmbeddedOptions {
        let mut options = EmbeddedOptions::default();
        options.accept_key_hash = self.accept_key_hash;
        options.images = self.images();
        options.group_writes_max = self.group_writes_max;
        options
    }

    /// The memory store's settings.
    pub(crate) fn memory(&self) -> MemoryOptions {
        let mut options = MemoryOptions::default();
        options.accept_key_hash = self.accept_key_hash;
        options.images = self.images();
        options
    }

    /// Where images lie and come from.
    fn images(&self) -> ImageOptions {
        let mut options = ImageOptions::default();
        options.shared.clone_from(&self.images);
        options.open_max = self.images_open_max;
        options.origins.addresses.clone_from(&self.image_origins);
        options.origins.secret = self.image_secret.as_ref().map(|s| s.reveal().to_owned());
        options.origins.on_failure = Some(Arc::new(|origin, reason| {
            tracing::warn!(origin, reason, "an image could not be fetched or put");
        }));
        options
    }

    /// The settings of a store in Redis.
    pub(crate) fn redis(&self, url: &str) -> RedisOptions {
        let mut options = RedisOptions::new(url);
        options.ca.clone_from(&self.redis_ca);
        options.timeout = Duration::from_millis(self.redis_timeout_ms);
        options.replicas = self.token_replicas;
        options.replicas_timeout = Duration::from_millis(self.token_replicas_timeout_ms);
        options.accept_key_hash = self.accept_key_hash;
        options.images = self.images();
        options
    }

    fn load(data: &Path, flags: &Flags) -> Result<Self, Failure> {
        let settings: Self = Figment::from(Serialized::defaults(Self::default()))
            .merge(file(data, flags)?)
            .merge(Env::prefixed(ENV_PREFIX).filter(|key| {
                let key = key.as_str().to_ascii_lowercase();
                is_key(&key) && key != IMAGE_SECRET
            }))
            // As it is: digits alone would be read as a number.
            .merge(Serialized::defaults(Literal { image_secret: std::env::var(ENV_SECRET).ok() }))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| explain(&error))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Failure> {
        let positive = [
            ("image_bytes_max", self.image_bytes_max),
            ("tls_handshake_timeout_s", self.tls_handshake_timeout_s),
            ("connections_max", self.connections_max as u64),
            ("backlog", u64::try_from(self.backlog).unwrap_or_default()),
            ("send_buffer_bytes", self.send_buffer_bytes as u64),
            ("receive_buffer_bytes", self.receive_buffer_bytes as u64),
            ("turn_bytes_max", self.turn_bytes_max as u64),
            ("images_open_max", self.images_open_max as u64),
            ("group_writes_max", self.group_writes_max as u64),
            ("redis_timeout_ms", self.redis_timeout_ms),
            ("token_replicas_timeout_ms", self.token_replicas_timeout_ms),
            ("head_bytes_max", self.head_bytes_max as u64),
            ("headers_max", self.headers_max as u64),
            ("target_bytes_max", self.target_bytes_max as u64),
            ("body_bytes_max", self.body_bytes_max as u64),
            ("json_depth_max", self.json_depth_max as u64),
            ("pipelined_requests_max", u64::from(self.pipelined_requests_max)),
            ("idle_timeout_s", self.idle_timeout_s),
            ("head_timeout_s", self.head_timeout_s),
            ("body_timeout_s", self.body_timeout_s),
            ("answer_timeout_ms", self.answer_timeout_ms),
            ("send_window_s", self.send_window_s),
            ("transfer_timeout_s", self.transfer_timeout_s),
            ("token_unused_s", self.token_unused_s),
            ("token_used_s", self.token_used_s),
            ("offers_max", u64::from(self.offers_max)),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(invalid(key, "must be more than 0"));
            }
        }
        if self.headers_max > HEADERS_MOST {
            return Err(invalid("headers_max", &format!("must be at most {HEADERS_MOST}")));
        }
        self.check_times()?;
        self.check_images()?;
        match &self.public_url {
            Some(url) if !is_origin(url) || url.len() > PUBLIC_URL_BYTES_MAX => {
                let rule = format!(
                    "must be http:// or https:// with a host and perhaps a port, without a final \
                     /, and have at most {PUBLIC_URL_BYTES_MAX} bytes"
                );
                Err(invalid("public_url", &rule))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Who may have the images of this server?
    fn check_images(&self) -> Result<(), Failure> {
        match (&self.image_secret, self.image_listen) {
            (Some(secret), _) if !secret.is_good() => {
                let rule = "must have at least 32 characters, none of them a blank; `openssl rand \
                            -hex 32` makes a good one";
                Err(invalid(IMAGE_SECRET, rule))
            }
            (None, Some(listen)) if !listen.ip().is_loopback() => {
                let rule = "needs `image_secret`, unless it is a loopback address: whoever \
                            reaches it could fetch every image";
                Err(invalid("image_listen", rule))
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// Times that are added to the present must not leave what a clock can hold.
    fn check_times(&self) -> Result<(), Failure> {
        let (s, ms) = (TIME_S_MAX, TIME_S_MAX * 1000);
        let times = [
            ("drain_timeout_s", self.drain_timeout_s, s),
            ("tls_handshake_timeout_s", self.tls_handshake_timeout_s, s),
            ("idle_timeout_s", self.idle_timeout_s, s),
            ("head_timeout_s", self.head_timeout_s, s),
            ("body_timeout_s", self.body_timeout_s, s),
            ("answer_timeout_ms", self.answer_timeout_ms, ms),
            ("redis_timeout_ms", self.redis_timeout_ms, ms),
            ("token_replicas_timeout_ms", self.token_replicas_timeout_ms, ms),
            ("send_window_s", self.send_window_s, s),
            ("transfer_timeout_s", self.transfer_timeout_s, s),
            ("transfer_backlog_s", self.transfer_backlog_s, s),
            ("linger_timeout_ms", self.linger_timeout_ms, ms),
            ("seen_resolution_s", self.seen_resolution_s, s),
            ("token_unused_s", self.token_unused_s, s),
            ("token_used_s", self.token_used_s, s),
            ("failure_backoff_s", self.failure_backoff_s, s),
        ];
        match times.iter().find(|(_, value, most)| value > most) {
            Some((key, _, most)) => {
                Err(invalid(key, &format!("must be at most {most}: ten years")))
            }
            None => Ok(()),
        }
    }
}

/// Is it a scheme and an authority, harmless in the replies that old libraries cut apart?
fn is_origin(url: &str) -> bool {
    let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    authority.is_some_and(|authority| !authority.is_empty() && authority.bytes().all(fits))
}

/// Environment variables that look like settings and are none, for a warning at start.
pub(crate) fn unknown_variables() -> Vec<String> {
    let mut unknown: Vec<_> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| {
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { return false };
            !is_key(&key.to_ascii_lowercase()) && !ENV_OTHERS.contains(&key)
        })
        .collect();
    unknown.sort();
    unknown
}

impl Default for Settings {
    fn default() -> Self {
        let core = Config::default();
        let embedded = EmbeddedOptions::default();
        let redis = RedisOptions::new("");
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7442));
        let driver = Options::new(listen);
        Self {
            listen: Listen::At(listen),
            tls_listen: Vec::new(),
            tls_cert: Vec::new(),
            tls_key: Vec::new(),
            tls_client_ca: None,
            tls_handshake_timeout_s: core.handshake_timeout.as_secs(),
            tls_sessions_max: SESSIONS_MAX,
            workers: 0,
            runtime: RuntimeKind::Mio,
            store: StoreChoice::Embedded,
            log_format: LogFormat::Human,
            image_bytes_max: 64 << 20,
            port_shared: driver.port_shared,
            connections_max: driver.connections_max,
            backlog: driver.backlog,
            send_buffer_bytes: driver.send_buffer_bytes,
            receive_buffer_bytes: driver.receive_buffer_bytes,
            turn_bytes_max: driver.turn_bytes_max,
            drain_timeout_s: driver.drain_timeout.as_secs(),
            accept_key_hash: embedded.accept_key_hash,
            images: None,
            images_open_max: embedded.images.open_max,
            image_origins: Vec::new(),
            image_listen: None,
            image_secret: None,
            group_writes_max: embedded.group_writes_max,
            redis_ca: None,
            redis_timeout_ms: millis(redis.timeout),
            token_replicas: redis.replicas,
            token_replicas_timeout_ms: millis(redis.replicas_timeout),
            head_bytes_max: core.head_bytes_max,
            headers_max: core.headers_max,
            target_bytes_max: core.target_bytes_max,
            body_bytes_max: core.body_bytes_max,
            chunk_line_bytes_max: core.chunk_line_bytes_max,
            trailer_bytes_max: core.trailer_bytes_max,
            json_depth_max: core.json_depth_max,
            pipelined_requests_max: core.pipelined_requests_max,
            idle_timeout_s: core.idle_timeout.as_secs(),
            head_timeout_s: core.head_timeout.as_secs(),
            body_timeout_s: core.body_timeout.as_secs(),
            answer_timeout_ms: millis(core.answer_timeout),
            retry_after_s: core.retry_after_s,
            send_window_s: core.send_window.as_secs(),
            send_window_bytes_min: core.send_window_bytes_min,
            transfer_timeout_s: core.transfer_timeout.as_secs(),
            transfer_backlog_s: core.transfer_backlog.as_secs(),
            transfer_backlog_bytes_min: core.transfer_backlog_bytes_min,
            linger_timeout_ms: millis(core.linger_timeout),
            linger_bytes_max: core.linger_bytes_max,
            status_mode: match core.status_mode {
                StatusMode::Thinx => Statuses::Thinx,
                StatusMode::Http => Statuses::Http,
            },
            thinx_get_200: core.thinx_get_200,
            seen_resolution_s: core.seen_resolution.as_secs(),
            token_unused_s: core.token_unused.as_secs(),
            token_used_s: core.token_used.as_secs(),
            offers_max: core.offers_max,
            failure_backoff_s: core.failure_backoff.as_secs(),
            public_url: None,
        }
    }
}

/// [`StatusMode`] as it stands in a file.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Statuses {
    Thinx,
    Http,
}

/// What the command line says; nothing hides what came before it.
#[derive(Debug, Default, Serialize)]
struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<Listen>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_listen: Vec<TlsListen>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_cert: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_key: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<RuntimeKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
    #[serde(skip)]
    config: Option<PathBuf>,
}

/// What a variable says is taken as it stands.
#[derive(Serialize)]
struct Literal {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_secret: Option<String>,
}

/// The file: the one that was named, which must exist, or the data directory's own.
fn file(data: &Path, flags: &Flags) -> Result<Figment, Failure> {
    let path = match &flags.config {
        Some(path) if !path.is_file() => {
            let error = format!("there is no configuration file {}", path.display());
            return Err(Failure::not_found(error).hint("check --config and OTTER_CONFIG"));
        }
        Some(path) => path.clone(),
        None => data.join(FILE_NAME),
    };
    let figment = Figment::new();
    // `Toml::file` would look in parent directories for a relative path.
    Ok(if path.is_file() { figment.merge(Toml::file_exact(path)) } else { figment })
}

fn is_key(name: &str) -> bool {
    keys().iter().any(|key| key == name)
}

fn keys() -> Vec<String> {
    match serde_json::to_value(Settings::default()) {
        Ok(serde_json::Value::Object(map)) => map.into_iter().map(|(key, _)| key).collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const ENV_PREFIX: &str = "OTTER_";
/// The variable that names the configuration file.
const ENV_CONFIG: &str = "OTTER_CONFIG";
/// The key of [`ENV_SECRET`].
const IMAGE_SECRET: &str = "image_secret";
const ENV_SECRET: &str = "OTTER_IMAGE_SECRET";
/// Variables of ours that are no settings, without the prefix.
const ENV_OTHERS: [&str; 3] = ["DATA", "CONFIG", "LOG"];
/// The configuration file inside the data directory.
const FILE_NAME: &str = "otter.toml";
/// [`Config::headers_max`] cannot be more.
const HEADERS_MOST: usize = 64;
/// The longest time that a setting may be: ten years.
const TIME_S_MAX: u64 = 10 * 365 * 86_400;
/// [`Config::public_url`] may not be longer.
const PUBLIC_URL_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::failure::Context;

    /// Fields of the core's settings that are no settings.
    const KEPT: [&str; 3] = ["spare", "buffers", "outflow"];

    #[test]
    fn the_documentation_lists_exactly_these_keys_with_their_defaults() {
        let documented: BTreeMap<String, String> = include_str!("../docs/configuration.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|row| {
                let cells: Vec<_> =
                    row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
                assert_eq!(cells.len(), 5, "key, unit, default, meaning: {row}");
                (cells[0].clone(), cells[2].clone())
            })
            .collect();
        let text = serde_json::to_string(&Settings::default()).expect("plain data");
        let existing: BTreeMap<String, String> =
            serde_json::from_str::<BTreeMap<String, Value>>(&text)
                .expect("an object")
                .into_iter()
                .map(|(key, value)| (key, shown(&value)))
                .collect();
        assert_eq!(documented, existing);
    }

    #[test]
    fn every_limit_of_the_core_has_a_key() {
        let names = keys();
        let debug = format!("{:#?}", Config::default());
        let fields = debug.lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("    ")?.split_once(':')?;
            (!name.starts_with(' ') && !KEPT.contains(&name)).then_some(name)
        });
        let mut seen = 0;
        for field in fields {
            let with = |unit: &str| names.contains(&format!("{field}{unit}"));
            let of_tls = names.contains(&format!("tls_{field}_s"));
            assert!(with("") || with("_s") || with("_ms") || of_tls, "no key for {field}");
            seen += 1;
        }
        assert!(seen > 20, "{debug}");
    }

    #[test]
    fn a_changed_setting_reaches_the_core() {
        let all = "head_bytes_max = 1\nheaders_max = 2\ntarget_bytes_max = 3\nbody_bytes_max = 4\n\
                   chunk_line_bytes_max = 5\ntrailer_bytes_max = 6\njson_depth_max = 7\n\
                   pipelined_requests_max = 8\nidle_timeout_s = 9\nhead_timeout_s = 110\n\
                   body_timeout_s = 11\nanswer_timeout_ms = 12\nretry_after_s = 113\n\
                   send_window_s = 14\nsend_window_bytes_min = 15\ntransfer_timeout_s = 16\n\
                   transfer_backlog_s = 25\ntransfer_backlog_bytes_min = 26\n\
                   linger_timeout_ms = 17\nlinger_bytes_max = 18\nstatus_mode = \"http\"\n\
                   thinx_get_200 = true\nseen_resolution_s = 19\ntoken_unused_s = 20\n\
                   token_used_s = 21\noffers_max = 22\nfailure_backoff_s = 23\n\
                   public_url = \"http://x.example\"\ntls_handshake_timeout_s = 24\n";
        let settings = from_file(all).expect("valid");
        let changed = format!("{:#?}", settings.core());
        let default = format!("{:#?}", Config::default());
        let fields = |text: &str| -> BTreeMap<String, String> {
            let one_line = text.replace(",\n    ", "\u{1}").replace('\n', " ");
            one_line
                .split('\u{1}')
                .filter_map(|field| field.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        let (changed, default) = (fields(&changed), fields(&default));
        assert!(changed.len() > 20, "{changed:?}");
        for (name, new) in changed.iter().filter(|(name, _)| !KEPT.contains(&name.as_str())) {
            assert_ne!(Some(new), default.get(name), "{name}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("idle_timeout = 5", ["unknown key `idle_timeout`", "did you mean `idle_timeout_s`"]),
            ("idle_timeout_s = \"5 s\"", ["`idle_timeout_s`: found string", "in its range"]),
            ("idle_timeout_s = -1", ["`idle_timeout_s`: found", "in its range"]),
            ("offers_max = 256", ["`offers_max`: found", "in its range"]),
            ("port_shared = 1", ["`port_shared`", "true or false"]),
            ("workers = 1.5", ["`workers`: found", "otter.toml"]),
            ("idle_timeout_s = 0", ["`idle_timeout_s`", "more than 0"]),
            ("headers_max = 65", ["`headers_max`", "at most 64"]),
            ("public_url = \"ftp://x\"", ["`public_url`", "http://"]),
            ("public_url = \"http://x/y\"", ["`public_url`", "host"]),
            ("public_url = \"http://x\\\"\"", ["`public_url`", "host"]),
            ("public_url = \"http://\"", ["`public_url`", "host"]),
            ("image_secret = \"short\"", ["`image_secret`", "32 characters"]),
            ("image_listen = \"0.0.0.0:1\"", ["`image_listen`", "needs `image_secret`"]),
            ("image_origins = \"http://a\"", ["`image_origins`", "otter.toml"]),
            ("status_mode = \"odd\"", ["found `odd`", "one of thinx, http"]),
            ("listen = \"7442\"", ["`listen`", "otter.toml"]),
            ("tls_listen = \"7443\"", ["`tls_listen`: an address", "otter.toml"]),
            ("tls_listen = [\"1.1.1.1:1,x=1\"]", ["`tls_listen`: `x` is no", "otter.toml"]),
            ("tls_cert = 5", ["`tls_cert`", "a text, or a list"]),
            ("tls_handshake_timeout_s = 0", ["`tls_handshake_timeout_s`", "more than 0"]),
        ] {
            let failure = from_file(text).expect_err(text).to_string();
            for word in words {
                assert!(failure.contains(word), "{text}: {failure}");
            }
        }
    }

    #[test]
    fn a_list_of_one_needs_no_brackets() {
        let one = from_file("tls_listen = \"0.0.0.0:1\"\ntls_cert = \"a.pem\"").expect("valid");
        let list =
            from_file("tls_listen = [\"0.0.0.0:1\"]\ntls_cert = [\"a.pem\"]").expect("valid");
        assert_eq!(one, list);
        assert_eq!((one.tls_listen.len(), one.tls_cert), (1, vec![PathBuf::from("a.pem")]));
    }

    #[test]
    fn no_time_leaves_what_a_clock_can_hold() {
        for key in keys() {
            let most = match key.rsplit_once('_') {
                Some((_, "s")) if key != "retry_after_s" => TIME_S_MAX,
                Some((_, "ms")) => TIME_S_MAX * 1000,
                Some(_) | None => continue,
            };
            assert!(from_file(&format!("{key} = {most}")).is_ok(), "{key}");
            let failure = from_file(&format!("{key} = {}", most + 1)).expect_err(&key).to_string();
            assert!(failure.contains(&key) && failure.contains("ten years"), "{failure}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE_NAME), "workers = 3\nretry_after_s = 5").expect("kept");
        let flags = Flags { workers: Some(4), ..Flags::default() };
        let settings = Settings::load(dir.path(), &flags).expect("valid");
        assert_eq!((settings.workers, settings.retry_after_s), (4, 5));
    }

    fn from_file(text: &str) -> Result<Settings, Failure> {
        let dir = tempfile::tempdir().context(String::new)?;
        std::fs::write(dir.path().join(FILE_NAME), text).context(String::new)?;
        Settings::load(dir.path(), &Flags::default())
    }

    fn shown(value: &Value) -> String {
        match value {
            Value::Null => "none".to_owned(),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                value.to_string()
            }
        }
    }
}
