//! The command line: what there is to say, and how it is explained.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use otter_protocol::{Alias, DeviceId, OwnerId, ReleaseId};

use crate::cert;
use crate::listen::{Listen, TlsListen};
use crate::store::StoreChoice;

/// A firmware update server for IoT devices that speak the THiNX protocol.
#[derive(Debug, Parser)]
#[command(name = "otter", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The data directory. All commands work on it, whether a server runs on it or not
    #[arg(
        long,
        global = true,
        env = "OTTER_DATA",
        default_value = "./otter-data",
        value_name = "DIR"
    )]
    pub(crate) data: PathBuf,
    /// Answer in JSON, for machines
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    ///
    /// Runs until SIGTERM or SIGINT, then lets transfers under way finish; a second signal exits
    /// at once.
    ///
    /// When ready, prints one line on stdout: `ready http=<address> admin=<path of the socket>`,
    /// with `https=<address>` after the first if there is TLS.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Owners: whom devices, keys and releases belong to
    #[command(subcommand, after_help = OWNER_EXAMPLES)]
    Owner(Owner),
    /// API keys: what an owner's devices authenticate with
    #[command(subcommand, after_help = KEY_EXAMPLES)]
    Key(Key),
    /// Devices: what is known of them, and whether they update by themselves
    #[command(subcommand, after_help = DEVICE_EXAMPLES)]
    Device(Device),
    /// One-time tokens: the right to fetch one image once
    #[command(subcommand, after_help = TOKEN_EXAMPLES)]
    Token(Token),
    /// Releases: what is published
    #[command(subcommand, after_help = RELEASE_EXAMPLES)]
    Release(Release),
    /// Stores: where facts are kept
    #[command(subcommand, after_help = STORE_EXAMPLES)]
    Store(Store),
    /// Publish a firmware image, or a directory of files, for one device or for all of an owner's
    ///
    /// Checks the firmware, copies it into the data directory and offers it from the next check-in
    /// on. A reader sees the release before or after, never a mixture.
    ///
    /// PATH is an image for arduino, platformio, pine64, mongoose and mongooseos, or a directory
    /// with `firmware.bin` in it (mongoose: `fw.zip`); for nodemcu, micropython and python it is a
    /// source file or a directory of them.
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish(Publish),
    /// Publish the builds of a THiNX deploy directory: DIR/OWNER/UDID/build.json
    ///
    /// Reads DIR/OWNER/UDID/build.json and the firmware beside it, as THiNX deploys them, and
    /// publishes each build for its device. What is published already is left alone, so it may be
    /// run again at any time.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(Import),
    /// Certificates: what devices are shown by TLS
    #[command(subcommand, after_help = CERT_EXAMPLES)]
    Cert(Cert),
    /// Play the whole story in a temporary directory: a server, and a device that updates itself
    #[command(after_help = DEMO_EXAMPLES)]
    Demo,
}

/// What `serve` takes.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Where devices connect without TLS, or off; port 0 takes any free one [default: 0.0.0.0:7442]
    #[arg(long, value_name = "ADDR|off")]
    pub(crate) listen: Option<Listen>,
    /// Where devices connect by TLS, such as 0.0.0.0:7443; may be given several times
    ///
    /// After the address there may be options: `,max_fragment_size=512` (bytes of a record, to
    /// 16384) for devices with small buffers, `,client_certificates=optional` or `required`.
    #[arg(long, value_name = "ADDR[,OPTIONS]")]
    pub(crate) tls_listen: Vec<TlsListen>,
    /// A certificate with its chain, PEM; may be given several times, the default first
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Vec<PathBuf>,
    /// The key of the certificate at the same place [default: it is in the certificate's file]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Threads that serve devices; 0 for one per core [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// A TOML file with any key of docs/configuration.md [default: otter.toml in the data
    /// directory, if it exists]
    #[arg(long, env = "OTTER_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How the log on stderr looks [default: human]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Where facts are kept: embedded (in the data directory), memory (until the end), or the URL
    /// of a Redis or Valkey, such as redis://127.0.0.1:6379 [default: embedded]
    ///
    /// Other forms: rediss:// (TLS), redis-sentinel://, redis-cluster://, redis+unix://. Commands
    /// that find no server on the data directory look into OTTER_STORE and otter.toml, so set it
    /// there to use them without one; a password is not seen by other users there, either.
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<StoreChoice>,
    /// What drives the connections of devices [default: mio]
    #[arg(long, value_name = "RUNTIME")]
    pub(crate) runtime: Option<RuntimeKind>,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

/// What drives the connections of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuntimeKind {
    /// One event loop per core: the least CPU and memory
    Mio,
    /// One tokio runtime per core: the same bytes
    Tokio,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Owner {
    /// Make an owner, with a random id or with one that exists elsewhere
    #[command(after_help = OWNER_CREATE_EXAMPLES)]
    Create {
        /// The id to take: 64 to 128 characters of a-z and 0-9 [default: a random one]
        #[arg(value_parser = owner_id)]
        owner: Option<OwnerId>,
    },
    /// List owners
    #[command(after_help = OWNER_LIST_EXAMPLES)]
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key. It is shown once and kept only as a hash
    #[command(after_help = KEY_CREATE_EXAMPLES)]
    Create {
        /// Whose key it is
        #[arg(long, value_parser = owner_id)]
        owner: OwnerId,
        /// What to call it
        #[arg(long, default_value = "default")]
        alias: String,
    },
    /// List keys by their hashes
    #[command(after_help = KEY_LIST_EXAMPLES)]
    List {
        /// Only this owner's
        #[arg(long, value_parser = owner_id)]
        owner: Option<OwnerId>,
    },
    /// Revoke a key: whoever presents it is refused from now on
    #[command(after_help = KEY_REVOKE_EXAMPLES)]
    Revoke {
        /// The key's hash, as `key create` and `key list` show it
        #[arg(value_parser = hash)]
        hash: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// List devices
    #[command(after_help = DEVICE_LIST_EXAMPLES)]
    List {
        /// Only this owner's
        #[arg(long, value_parser = owner_id)]
        owner: Option<OwnerId>,
    },
    /// Show one device with all it said of itself
    #[command(after_help = DEVICE_SHOW_EXAMPLES)]
    Show {
        /// The device
        #[arg(value_parser = device_id)]
        udid: DeviceId,
    },
    /// Change a device's settings
    #[command(after_help = DEVICE_SET_EXAMPLES)]
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Set {
        /// The device
        #[arg(value_parser = device_id)]
        udid: DeviceId,
        /// May it be offered updates without being asked?
        #[arg(long, value_name = "on|off", group = "change")]
        auto_update: Option<Switch>,
        /// What to call it; quotes, backslashes, braces and control characters are dropped
        #[arg(long, group = "change", value_parser = alias)]
        alias: Option<String>,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Issue a token for a device. It replaces the one that the device has for the same release
    #[command(after_help = TOKEN_ISSUE_EXAMPLES)]
    Issue {
        /// The device
        #[arg(long, value_name = "UDID", value_parser = device_id)]
        device: DeviceId,
    },
    /// Revoke one token, or all of a device
    #[command(after_help = TOKEN_REVOKE_EXAMPLES)]
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Revoke {
        /// The token: 64 lower-case hexadecimal digits
        #[arg(group = "which", value_parser = token)]
        ott: Option<String>,
        /// Revoke all tokens of this device
        #[arg(long, value_name = "UDID", group = "which", value_parser = device_id)]
        device: Option<DeviceId>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Release {
    /// List releases, the newest first
    #[command(after_help = RELEASE_LIST_EXAMPLES)]
    List {
        /// Only this owner's
        #[arg(long, value_parser = owner_id)]
        owner: Option<OwnerId>,
        /// Only those that this device may get
        #[arg(long, value_name = "UDID", value_parser = device_id)]
        device: Option<DeviceId>,
    },
    /// Withdraw a release: it is offered no more, and its tokens lead to nothing
    #[command(after_help = RELEASE_WITHDRAW_EXAMPLES)]
    Withdraw {
        /// The release, as `publish` and `release list` show it
        #[arg(value_parser = release_id)]
        release: ReleaseId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Copy everything from one store into another, empty one, and compare the two
    ///
    /// Owners, keys, devices, releases with their images, and tokens: devices go on with the keys
    /// they have, and downloads with the tokens they have. Stop the servers that use either store
    /// first.
    ///
    /// FROM and TO are each the data directory of an embedded store, the URL of a Redis or Valkey
    /// as `serve` takes it, or the word `configured` for the store that OTTER_STORE or otter.toml
    /// names (a password is not seen by other users there). The images of a store in Redis lie in
    /// the data directory of its servers: name that by --data.
    ///
    /// A copy that broke off is made again with the same command. Until it is complete no server
    /// starts on TO.
    #[command(after_help = STORE_COPY_EXAMPLES)]
    Copy(StoreCopy),
}

/// What `store copy` takes.
#[derive(Args, Debug)]
pub(crate) struct StoreCopy {
    /// The store that is read
    pub(crate) from: String,
    /// The store that is filled
    pub(crate) to: String,
    /// Where TO is in Redis: the data directory of its servers, if it is another one than --data
    #[arg(long, value_name = "DIR")]
    pub(crate) to_data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Make a certificate that signs itself, and its key, to try TLS
    ///
    /// The key is ECDSA P-256: the one that costs devices and the server least. Devices that check
    /// nothing (`setInsecure`) or a fingerprint need no other; browsers and curl must be told to
    /// trust it.
    #[command(after_help = CERT_SELF_SIGNED_EXAMPLES)]
    SelfSigned(SelfSigned),
    /// Show a certificate: names, key, validity, fingerprints, and whether its key is the right one
    ///
    /// The exit code is 1 if the key belongs to another certificate.
    #[command(after_help = CERT_SHOW_EXAMPLES)]
    Show {
        /// The PEM file; of a chain, the first certificate is shown
        file: PathBuf,
        /// The PEM file of its key [default: the same, if there is a key in it]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
}

/// What `cert self-signed` takes.
#[derive(Args, Debug)]
pub(crate) struct SelfSigned {
    /// A DNS name or an address of the server; may be given several times [default: localhost,
    /// 127.0.0.1, ::1 and the name of this host]
    #[arg(long, value_name = "NAME", value_parser = cert::name)]
    pub(crate) name: Vec<String>,
    /// For how many days it is valid
    #[arg(long, value_name = "N", default_value_t = 825,
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: u32,
    /// Where cert.pem and key.pem go [default: tls in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace a certificate and a key that are there
    #[arg(long)]
    pub(crate) force: bool,
}

/// What `publish` takes.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub(crate) struct Publish {
    /// The image, or the directory
    pub(crate) path: PathBuf,
    /// Whose devices it is for
    #[arg(long, value_parser = owner_id)]
    pub(crate) owner: OwnerId,
    /// The one device it is for
    #[arg(long, value_name = "UDID", group = "target", value_parser = device_id)]
    pub(crate) device: Option<DeviceId>,
    /// It is for all of the owner's devices
    #[arg(long, group = "target")]
    pub(crate) all: bool,
    /// Its version, such as 1.2.0 or name:1.2.0
    #[arg(long, value_name = "V")]
    pub(crate) version: String,
    /// Its platform, such as arduino, platformio:esp8266 or nodemcu
    #[arg(long, value_name = "P")]
    pub(crate) platform: String,
    /// The hash of its environment: a device of the same version and another hash updates too
    #[arg(long, value_name = "H")]
    pub(crate) env_hash: Option<String>,
}

/// What `import` takes.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// The deploy directory
    pub(crate) dir: PathBuf,
    /// Stay, and publish each new build as soon as it is written and quiet
    #[arg(long)]
    pub(crate) watch: bool,
    /// With --watch: milliseconds for which a build must not change before it is taken
    #[arg(long, value_name = "MS", default_value_t = 1000, requires = "watch",
          value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub(crate) quiet_ms: u64,
}

fn owner_id(text: &str) -> Result<OwnerId, String> {
    OwnerId::parse(text).ok_or_else(|| {
        format!("an owner id is 64 to 128 characters of a-z and 0-9; this has {}", text.len())
    })
}

fn device_id(text: &str) -> Result<DeviceId, String> {
    DeviceId::parse(text)
        .ok_or_else(|| "a udid is 36 characters, hexadecimal as 8-4-4-4-12".to_owned())
}

fn release_id(text: &str) -> Result<ReleaseId, String> {
    ReleaseId::parse(text)
        .ok_or_else(|| "a release id is 36 characters, hexadecimal as 8-4-4-4-12".to_owned())
}

fn token(text: &str) -> Result<String, String> {
    hex(text, "a token is 64 lower-case hexadecimal digits")
}

fn hash(text: &str) -> Result<String, String> {
    hex(text, "a key's hash is 64 lower-case hexadecimal digits; `otter key list` shows it")
}

fn hex(text: &str, rule: &str) -> Result<String, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() == 64 && digits { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

fn alias(text: &str) -> Result<String, String> {
    Alias::clean(text).map(|alias| alias.to_string()).ok_or_else(|| {
        "nothing is left of it: an alias is up to 64 bytes other than \" \\ { } and control \
         characters, and not `unnamed`"
            .to_owned()
    })
}

const AFTER_HELP: &str = "\
Examples:
  otter demo                                   see it work, in a second
  otter serve                                  run the server on port 7442
  otter publish app.bin --owner O --all --version 1.1.0 --platform arduino
  otter device list --json

Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  something that was named does not exist
  4  conflict: it exists already, or the data directory is locked
  5  the server or the store cannot answer now";

const SERVE_EXAMPLES: &str = "\
Examples:
  otter serve
  otter serve --data /var/lib/otter --listen 0.0.0.0:7442 --log-format json
  otter serve --listen 127.0.0.1:0 --store memory      to try things out
  otter serve --tls-listen 0.0.0.0:7443 --cert cert.pem --key key.pem
  OTTER_LOG=debug otter serve                          one line for each request

On a fresh store it makes an owner and an API key, prints them once on stderr, and with
them curl lines that play a device.";

const OWNER_EXAMPLES: &str = "\
Examples:
  otter owner create
  otter owner list";

const OWNER_CREATE_EXAMPLES: &str = "\
Examples:
  otter owner create
  O=$(otter owner create --json | sed 's/.*\"owner\":\"\\([^\"]*\\)\".*/\\1/')
  otter owner create 4f2d...e1                 take over an owner of THiNX";

const OWNER_LIST_EXAMPLES: &str = "\
Examples:
  otter owner list
  otter owner list --json";

const KEY_EXAMPLES: &str = "\
Examples:
  otter key create --owner O --alias workshop
  otter key list
  otter key revoke HASH";

const KEY_CREATE_EXAMPLES: &str = "\
Examples:
  otter key create --owner O
  otter key create --owner O --alias workshop --json";

const KEY_LIST_EXAMPLES: &str = "\
Examples:
  otter key list
  otter key list --owner O --json";

const KEY_REVOKE_EXAMPLES: &str = "\
Examples:
  otter key revoke 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

const DEVICE_EXAMPLES: &str = "\
Examples:
  otter device list
  otter device show UDID
  otter device set UDID --auto-update on";

const DEVICE_LIST_EXAMPLES: &str = "\
Examples:
  otter device list
  otter device list --owner O --json";

const DEVICE_SHOW_EXAMPLES: &str = "\
Examples:
  otter device show 5ccf7fee-1337-4000-8000-00000000ab01
  otter device show 5ccf7fee-1337-4000-8000-00000000ab01 --json";

const DEVICE_SET_EXAMPLES: &str = "\
Examples:
  otter device set 5ccf7fee-1337-4000-8000-00000000ab01 --auto-update on
  otter device set 5ccf7fee-1337-4000-8000-00000000ab01 --alias greenhouse";

const TOKEN_EXAMPLES: &str = "\
Examples:
  otter token issue --device UDID
  otter token revoke OTT
  otter token revoke --device UDID";

const TOKEN_ISSUE_EXAMPLES: &str = "\
Examples:
  otter token issue --device 5ccf7fee-1337-4000-8000-00000000ab01
  otter token issue --device 5ccf7fee-1337-4000-8000-00000000ab01 --json";

const TOKEN_REVOKE_EXAMPLES: &str = "\
Examples:
  otter token revoke 3c9909afec25354d551dae21590bb26e38d53f2173b8d3dc3eee4c047e7ab1c1
  otter token revoke --device 5ccf7fee-1337-4000-8000-00000000ab01";

const RELEASE_EXAMPLES: &str = "\
Examples:
  otter release list
  otter release withdraw RELEASE";

const RELEASE_LIST_EXAMPLES: &str = "\
Examples:
  otter release list
  otter release list --device 5ccf7fee-1337-4000-8000-00000000ab01 --json";

const RELEASE_WITHDRAW_EXAMPLES: &str = "\
Examples:
  otter release withdraw 0d5e9dd1-5b54-4a1a-9b5c-7a2f6f2f1c55";

const STORE_EXAMPLES: &str = "\
Examples:
  otter store copy ./otter-data redis://127.0.0.1:6379 --data ./otter-data";

const STORE_COPY_EXAMPLES: &str = "\
Examples:
  otter store copy ./otter-data redis://127.0.0.1:6379 --data ./otter-data
                                               to Redis; images stay where they are
  otter store copy redis://127.0.0.1:6379 ./back --data ./otter-data
                                               and back, into a new directory
  otter store copy redis://a:6379 redis://b:6379 --data ./otter-data
                                               from one Redis to another
  OTTER_STORE=redis://:secret@a:6379 otter store copy ./otter-data configured

Prints how many of each there are on both sides. The exit code is 1 if they are not the same.";

const PUBLISH_EXAMPLES: &str = "\
Examples:
  otter publish app.bin --owner O --all --version 1.1.0 --platform arduino
  otter publish app.bin --owner O --device UDID --version sensor:1.2.0 --platform platformio
  otter publish ./lua --owner O --all --version 2.0.0 --platform nodemcu --json";

const IMPORT_EXAMPLES: &str = "\
Examples:
  otter import /mnt/data/deploy
  otter import /mnt/data/deploy --watch --json";

const CERT_EXAMPLES: &str = "\
Examples:
  otter cert self-signed
  otter cert show cert.pem";

const CERT_SELF_SIGNED_EXAMPLES: &str = "\
Examples:
  otter cert self-signed
  otter cert self-signed --name ota.example.com --name 192.0.2.7 --out /etc/otter/tls
  otter cert self-signed --days 3650 --force";

const CERT_SHOW_EXAMPLES: &str = "\
Examples:
  otter cert show cert.pem
  otter cert show fullchain.pem --key privkey.pem --json";

const DEMO_EXAMPLES: &str = "\
Examples:
  otter demo
  otter demo --json";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }
}
