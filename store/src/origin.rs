//! Where images come from that do not lie here: other servers, and object storage.
//!
//! An origin gives an image by its SHA-256 as `<address>/<64 hex digits>`. What it gives is never
//! trusted: an image is kept only if its bytes are what its name says.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use url::Url;

use crate::error::OpenError;
use crate::images::{ImageName, file_name};

pub(crate) use fetcher::{Fetcher, Waiter};

mod connector;
mod fetcher;
mod transfer;

use connector::Connector;

/// Where images are fetched from that do not lie here, and put to when they are published.
#[derive(Clone)]
#[non_exhaustive]
pub struct OriginOptions {
    /// The origins in the order in which they are tried. Default none.
    ///
    /// - `http://host:port/images`, `https://..`: another server's image listener;
    /// - `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`: object storage, with
    ///   credentials and endpoints from the environment as the crate `object_store` documents
    ///   (`AWS_*`, `GOOGLE_*`, `AZURE_*`);
    /// - `file:///path`: a directory that exists, such as one that several servers mount.
    ///
    /// A publication puts its image to the first of them that is not `http` or `https`.
    pub addresses: Vec<String>,
    /// What other servers' image listeners ask for. Default none.
    pub secret: Option<String>,
    /// How many images are fetched at the same time. Default 4. Beyond: they wait their turn.
    pub fetches_max: usize,
    /// How long a connection to an origin may take. Default 2 s. Beyond: the next origin is tried.
    pub connect_timeout: Duration,
    /// How long an origin may stand still. Default 10 s. Beyond: the next origin is tried.
    pub progress_timeout: Duration,
    /// How long an image that could not be had is not asked for again. Default 5 s. An origin that
    /// could not be reached is tried after all others for six times as long.
    pub failure_kept: Duration,
    /// Told of every failure but that an image is not there: the origin, and the reason. Called
    /// from a thread that must not be held up. Default nobody.
    pub on_failure: Option<OnFailure>,
}

/// See [`OriginOptions::on_failure`].
pub type OnFailure = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What became of the fetches from one origin, since the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginState {
    /// The origin, as it was given.
    pub origin: String,
    /// Are published images put there?
    pub takes_images: bool,
    /// Images that it gave.
    pub fetched_total: u64,
    /// Times that it did not, other than by not having the image.
    pub failed_total: u64,
    /// The last such failure.
    pub last_failure: Option<OriginFailure>,
}

/// A failure of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginFailure {
    /// Unix seconds.
    pub unix_s: u64,
    /// What happened.
    pub reason: String,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            secret: None,
            fetches_max: 4,
            connect_timeout: Duration::from_secs(2),
            progress_timeout: Duration::from_secs(10),
            failure_kept: Duration::from_secs(5),
            on_failure: None,
        }
    }
}

impl fmt::Debug for OriginOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginOptions")
            .field("addresses", &self.addresses)
            .field("fetches_max", &self.fetches_max)
            .field("connect_timeout", &self.connect_timeout)
            .field("progress_timeout", &self.progress_timeout)
            .field("failure_kept", &self.failure_kept)
            .finish_non_exhaustive()
    }
}

/// One origin.
pub(crate) struct Origin {
    address: String,
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    takes_images: bool,
    pause: Duration,
    fetched: AtomicU64,
    failed: AtomicU64,
    troubles: Mutex<Troubles>,
}

#[derive(Default)]
struct Troubles {
    last: Option<OriginFailure>,
    /// Until when it is tried after all others.
    paused_until: Option<Instant>,
}

/// Why an origin did not give an image.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It does not have it.
    Missing,
    /// It could not be reached, broke off, or stood still.
    Unreachable(String),
    /// It does not give it to us.
    Refused(String),
    /// What it gave is not what was published.
    Wrong(String),
    /// It could not be kept here.
    Unkept(String),
}

impl Origin {
    /// Understands an address; asks nothing of it yet.
    ///
    /// # Errors
    /// [`OpenError::Origin`]
    pub(crate) fn open(address: &str, options: &OriginOptions) -> Result<Self, OpenError> {
        let failed = |reason: String| OpenError::Origin { origin: address.to_owned(), reason };
        let url = Url::parse(address).map_err(|error| failed(error.to_string()))?;
        if url.query().is_some() || url.fragment().is_some() || url.password().is_some() {
            return Err(failed("leave out what follows ? or #, and passwords".to_owned()));
        }
        let store = store_of(address, &url, options).map_err(failed)?;
        let is_directory = url.scheme() == "file";
        let path = if is_directory || is_server(&url) { "" } else { url.path() };
        let prefix = ObjectPath::from_url_path(path).map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            address: address.to_owned(),
            store,
            prefix,
            takes_images: !is_server(&url),
            pause: options.failure_kept * PAUSE_FACTOR,
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            troubles: Mutex::default(),
        })
    }

    pub(crate) fn takes_images(&self) -> bool {
        self.takes_images
    }

    /// Should others be tried before it?
    pub(crate) fn is_paused(&self, now: Instant) -> bool {
        self.troubles().paused_until.is_some_and(|until| now < until)
    }

    /// It gave an image.
    pub(crate) fn gave(&self) {
        self.fetched.fetch_add(1, Relaxed);
        self.troubles().paused_until = None;
    }

    /// It failed, other than by not having the image.
    pub(crate) fn failed(&self, reason: &str, is_unreachable: bool) {
        self.failed.fetch_add(1, Relaxed);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut troubles = self.troubles();
        troubles.last =
            Some(OriginFailure { unix_s: since_1970.as_secs(), reason: reason.to_owned() });
        if is_unreachable {
            troubles.paused_until = Some(Instant::now() + self.pause);
        }
    }

    pub(crate) fn state(&self) -> OriginState {
        OriginState {
            origin: self.address.clone(),
            takes_images: self.takes_images,
            fetched_total: self.fetched.load(Relaxed),
            failed_total: self.failed.load(Relaxed),
            last_failure: self.troubles().last.clone(),
        }
    }

    /// Where it has the image of this name.
    fn path(&self, name: &ImageName) -> ObjectPath {
        self.prefix.clone().join(file_name(name))
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(&self.address).finish()
    }
}

/// The client for an address.
fn store_of(
    address: &str,
    url: &Url,
    options: &OriginOptions,
) -> Result<Arc<dyn ObjectStore>, String> {
    let connector = Connector::new(options.connect_timeout);
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: options.progress_timeout,
    };
    let built: Result<Arc<dyn ObjectStore>, object_store::Error> = match url.scheme() {
        // Not again at the same server: there may be another one, and the device asks again.
        _ if is_server(url) => HttpBuilder::new()
            .with_url(address)
            .with_retry(RetryConfig { max_retries: 0, ..retry })
            .with_http_connector(connector.for_server(options.secret.as_deref())?)
            .build()
            .map(|store| Arc::new(store) as _),
        "s3" => AmazonS3Builder::from_env()
            .with_url(address)
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map(|store| Arc::new(store) as _),
        "gs" => GoogleCloudStorageBuilder::from_env()
            .with_url(address)
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map(|store| Arc::new(store) as _),
        "az" => MicrosoftAzureBuilder::from_env()
            .with_url(address)
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map(|store| Arc::new(store) as _),
        "file" => LocalFileSystem::new_with_prefix(directory_of(url)?)
            .map(|store| Arc::new(store.with_fsync(true)) as _),
        _ => return Err("begin it with http, https, s3, gs, az or file".to_owned()),
    };
    built.map_err(|error| chain(&error))
}

fn directory_of(url: &Url) -> Result<PathBuf, String> {
    let path = url.to_file_path().map_err(|()| "write it as file:///path".to_owned())?;
    if path.is_dir() { Ok(path) } else { Err("there is no such directory".to_owned()) }
}

/// Is it another server, which gives images and takes none?
fn is_server(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

/// All that an error says, without saying anything twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = error.source();
    }
    text
}

/// Of one request to object storage, within [`OriginOptions::progress_timeout`].
const RETRIES_MAX: usize = 2;
/// In [`OriginOptions::failure_kept`].
const PAUSE_FACTOR: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str) -> Result<Origin, String> {
        let opened = Origin::open(address, &OriginOptions::default());
        opened.map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_lies_below_the_address() {
        for (address, path) in [
            ("http://a:7441/images", "0707"),
            ("s3://bucket/some/prefix", "some/prefix/0707"),
            ("s3://bucket", "0707"),
            ("s3://bucket/some/prefix/", "some/prefix/0707"),
        ] {
            let origin = open(address).expect(address);
            let found = origin.path(&[7; 32]);
            assert!(found.as_ref().starts_with(path), "{address}: {found}");
            assert_eq!(origin.takes_images(), address.starts_with("s3"), "{address}");
        }
    }

    #[test]
    fn what_cannot_be_an_origin_says_why() {
        for (address, reason) in [
            ("nowhere", "relative URL"),
            ("ftp://a/images", "begin it with http"),
            ("file:///no/such/directory", "there is no such directory"),
            ("http://a/images?x=1", "leave out"),
            ("http://user:password@a/images", "leave out"),
        ] {
            let error = open(address).expect_err(address);
            assert!(error.contains(reason) && error.contains(address), "{address}: {error}");
        }
    }

    #[test]
    fn an_origin_that_cannot_be_reached_is_paused() {
        let origin = open("http://a:7441/images").expect("an address");
        let now = Instant::now();
        origin.failed("403", false);
        assert!(!origin.is_paused(now));
        origin.failed("away", true);
        assert!(origin.is_paused(now) && !origin.is_paused(now + Duration::from_secs(60)));
        assert_eq!(origin.state().last_failure.expect("kept").reason, "away");
        origin.gave();
        assert!(!origin.is_paused(now));
        assert_eq!((origin.state().fetched_total, origin.state().failed_total), (1, 2));
    }
}
