//! Connecting to Redis: URL, TLS, and what is looked at before anything is asked.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectError, ReconnectPolicy, Server,
    ServerConfig, TlsConfig, TlsConnector, TlsHostMapping, UnresponsiveConfig,
};
use fred::types::{Builder, InfoKind};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::RedisOptions;
use super::node::{Node, Replicated};
use super::nodes::{Nodes, Said};
use super::status::Status;
use crate::error::OpenError;

/// Connects to servers of one Redis.
pub(super) struct Dialer {
    config: Config,
    timeout: Duration,
    replicas: u32,
    replicas_timeout: Duration,
    status: Arc<Status>,
}

/// Connects and looks whether this Redis will do; also says what an operator should know.
///
/// # Errors
/// [`OpenError::RedisUrl`], [`OpenError::Redis`]
pub(super) async fn connect(
    options: &RedisOptions,
    status: &Arc<Status>,
) -> Result<(Nodes, Vec<String>), OpenError> {
    let dialer = Dialer {
        config: config(options)?,
        timeout: options.timeout,
        replicas: options.replicas,
        replicas_timeout: options.replicas_timeout,
        status: Arc::clone(status),
    };
    if dialer.is_cluster() {
        let (info, said) = dialer.find_cluster().await?;
        let warnings = examine(&info)?;
        return Ok((Nodes::cluster(dialer, &said)?, warnings));
    }
    let client = dialer.dial(&dialer.config).await?;
    let warnings = examine(&info(&client).await?)?;
    let replicated = match dialer.replicas {
        0 => None,
        _ => Some(dialer.replicated(dialer.dial(&dialer.config).await?)),
    };
    let node = Node::new(None, client, replicated, dialer.timeout);
    Ok((Nodes::single(dialer, node), warnings))
}

async fn info(client: &Client) -> Result<String, OpenError> {
    let info = client.info(Some(InfoKind::All)).await;
    info.map_err(|error| {
        OpenError::redis(format!("it does not say what it is: {}", error.details()))
    })
}

impl Dialer {
    pub(super) fn is_cluster(&self) -> bool {
        self.config.server.is_clustered()
    }

    /// Asks any node that the URL names what it is, and who has which slots.
    ///
    /// # Errors
    /// [`OpenError::Redis`] of the last one if there is none.
    pub(super) async fn find_cluster(&self) -> Result<(String, Said), OpenError> {
        let mut refusal = OpenError::redis("its URL names no node");
        for server in self.config.server.hosts() {
            let server = self.server(server.host.to_string(), server.port);
            match self.ask_node(&server).await {
                Ok(found) => return Ok(found),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    async fn ask_node(&self, server: &Server) -> Result<(String, Said), OpenError> {
        let client = self.dial(&self.config_of(server)).await?;
        let info = info(&client).await;
        let said = Said::ask(&client, server).await;
        // Whether or not it says goodbye.
        let _ = client.quit().await;
        Ok((info?, said.ok_or_else(|| OpenError::redis("it is no node of a cluster"))?))
    }

    /// A server of the cluster. Its certificate may name it as the URL does, where that names only
    /// one host.
    pub(super) fn server(&self, host: String, port: u16) -> Server {
        let mut server = Server::new(host, port);
        let hosts = self.config.server.hosts();
        let is_named = hosts.iter().any(|named| named.host == server.host);
        if self.config.tls.is_some() && !is_named {
            server.tls_server_name = hosts.first().map(|named| named.host.clone());
        }
        server
    }

    /// A server of the cluster, which is connected to in the background.
    ///
    /// # Errors
    /// [`OpenError::Redis`] if its name makes no sense.
    pub(super) fn node(&self, server: &Server) -> Result<Node, OpenError> {
        let mut config = self.config_of(server);
        config.fail_fast = false;
        let dial = || {
            let client = self.client(&config)?;
            client.connect();
            Ok::<_, OpenError>(client)
        };
        let replicated = match self.replicas {
            0 => None,
            _ => Some(self.replicated(dial()?)),
        };
        Ok(Node::new(Some(server.clone()), dial()?, replicated, self.timeout))
    }

    fn config_of(&self, server: &Server) -> Config {
        let server = ServerConfig::Centralized { server: server.clone() };
        Config { server, ..self.config.clone() }
    }

    fn replicated(&self, client: Client) -> Replicated {
        Replicated { client, replicas: self.replicas, timeout: self.replicas_timeout }
    }

    async fn dial(&self, config: &Config) -> Result<Client, OpenError> {
        let client = self.client(config)?;
        let why = match timeout(CONNECT_PATIENCE.max(self.timeout), client.init()).await {
            Ok(Ok(_)) => return Ok(client),
            Ok(Err(error)) => plain(&error).to_owned(),
            Err(_) => "it does not answer".to_owned(),
        };
        let at: Vec<_> = config.server.hosts().iter().map(place).collect();
        let over = if config.tls.is_some() { " over TLS" } else { "" };
        Err(OpenError::redis(format!("{}{over}: {why}", at.join(", "))))
    }

    fn client(&self, config: &Config) -> Result<Client, OpenError> {
        let patience = self.timeout;
        // Claims that wait for replicas may take that much longer.
        let reply_max =
            patience + if self.replicas > 0 { self.replicas_timeout } else { Duration::ZERO };
        let client = Builder::from_config(config.clone())
            .set_performance_config(PerformanceConfig {
                default_command_timeout: reply_max,
                ..PerformanceConfig::default()
            })
            .set_connection_config(ConnectionConfig {
                connection_timeout: patience,
                internal_command_timeout: patience,
                // What was under way when a connection ended is never sent again: it might have
                // been carried out.
                max_command_attempts: 1,
                // A connection that ends takes the answers to all that is under way with it. So it
                // ends for an answer only where another server can be found instead.
                reconnect_errors: if config.server.is_sentinel() {
                    vec![ReconnectError::ReadOnly]
                } else {
                    Vec::new()
                },
                unresponsive: UnresponsiveConfig {
                    max_timeout: Some(reply_max),
                    interval: patience / 4,
                },
                ..ConnectionConfig::default()
            })
            .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MS.0, RECONNECT_MS.1, 2))
            .build()
            .map_err(|error| OpenError::redis(error.details()))?;
        let noted = Arc::clone(&self.status);
        client.on_error(move |(error, server)| {
            let at = server.map_or_else(String::new, |server| format!("{server}: "));
            noted.note(format!("{at}{}", plain(&error)));
            async { Ok(()) }
        });
        Ok(client)
    }
}

fn config(options: &RedisOptions) -> Result<Config, OpenError> {
    let (plain_url, tls) = without_tls(options.url.trim())?;
    let mut config = Config::from_url(&plain_url)
        .map_err(|error| OpenError::RedisUrl { reason: error.details().to_owned() })?;
    if config.server.hosts().iter().any(|server| server.host.is_empty()) {
        return Err(OpenError::RedisUrl { reason: "it names no server".to_owned() });
    }
    if tls {
        let connector = TlsConnector::from(tls_config(options.ca.as_deref())?);
        config.tls = Some(TlsConfig { connector, hostnames: TlsHostMapping::DefaultHost });
    }
    Ok(config)
}

/// The URL with a scheme that speaks of no TLS, and whether it did: fred would take the system's
/// authorities, whatever ours are.
fn without_tls(url: &str) -> Result<(String, bool), OpenError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let tls = ["rediss", "valkeys"].iter().any(|tls| scheme.starts_with(tls));
    let name = if scheme.starts_with("valkey") { "valkey" } else { "redis" };
    let kind = scheme.strip_prefix(name).map(|kind| kind.strip_prefix('s').unwrap_or(kind));
    match kind {
        Some(kind @ ("" | "-sentinel" | "-cluster")) => Ok((format!("{name}{kind}://{rest}"), tls)),
        Some("+unix") if !tls => Ok((url.to_owned(), tls)),
        Some(_) | None => {
            let reason = "begin it with redis://, rediss://, redis-sentinel://, \
                          rediss-sentinel://, redis-cluster://, rediss-cluster:// or redis+unix://";
            Err(OpenError::RedisUrl { reason: reason.to_owned() })
        }
    }
}

/// Where a server is: its address, or the path of its socket.
fn place(server: &Server) -> String {
    match server.port {
        0 => server.host.to_string(),
        port => format!("{}:{port}", server.host),
    }
}

/// What an error of fred's says. It shows errors of the system as Rust does: `Os { code: 111, kind:
/// ConnectionRefused, message: "Connection refused" }`.
fn plain(error: &Error) -> &str {
    let said = error.details();
    let quoted = || Some(said.split_once('"')?.1.rsplit_once('"')?.0);
    let is_shown = said.starts_with("Os {") || said.starts_with("Custom {");
    is_shown.then(quoted).flatten().unwrap_or(said)
}

fn tls_config(ca: Option<&Path>) -> Result<ClientConfig, OpenError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let named = |what: &dyn std::fmt::Display| {
                OpenError::redis(format!("the certificates in {}: {what}", path.display()))
            };
            let pem = fs::read(path).map_err(|error| named(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| named(&error))?;
                roots.add(certificate).map_err(|error| named(&error))?;
            }
            if roots.is_empty() {
                return Err(named(&"there is none"));
            }
        }
        None => {
            // One that cannot be read is left out: the others may do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OpenError::redis)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Looks at what Redis says of itself.
fn examine(info: &str) -> Result<Vec<String>, OpenError> {
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
    };
    let version = field("redis_version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < VERSION_MIN) {
        let error = format!("it has version `{version}`; Redis {VERSION_MIN} or Valkey is needed");
        return Err(OpenError::redis(error));
    }
    let mut warnings = Vec::new();
    let policy = field("maxmemory_policy");
    if !policy.is_empty() && policy != "noeviction" {
        warnings.push(format!(
            "Redis may throw facts away when its memory is full (maxmemory-policy {policy}); set \
             it to noeviction"
        ));
    }
    if field("aof_enabled") == "0" {
        warnings.push(
            "Redis forgets what is not in its last snapshot when it ends (appendonly no); set \
             appendonly to yes"
                .to_owned(),
        );
    }
    Ok(warnings)
}

/// Milliseconds between two attempts to connect: the first, and the most.
const RECONNECT_MS: (u32, u32) = (50, 1000);
/// How long the first connection is waited for, at least.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// The first major version that has functions.
const VERSION_MIN: u32 = 7;

#[cfg(test)]
mod tests {
    use fred::error::ErrorKind;

    use super::*;

    #[test]
    fn errors_of_the_system_are_told_in_its_words() {
        for (shown, told) in [
            (r#"Os { code: 111, kind: ConnectionRefused, message: "refused" }"#, "refused"),
            (r#"Custom { kind: Uncategorized, error: "not \"found\"" }"#, r#"not \"found\""#),
            ("Custom { kind: InvalidData, error: UnknownIssuer }", ""),
            ("NOAUTH Authentication required.", ""),
        ] {
            let error = Error::new(ErrorKind::IO, shown);
            assert_eq!(plain(&error), if told.is_empty() { shown } else { told });
        }
    }

    #[test]
    fn a_redis_that_forgets_is_warned_of() {
        let good = "redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        assert!(examine(good).expect("it will do").is_empty());
        let bad = "redis_version:7.2.4\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n";
        assert_eq!(examine(bad).expect("it will do").len(), 2);
        let old = examine("redis_version:6.2.1\r\n").expect_err("too old").to_string();
        assert!(old.contains("6.2.1"), "{old}");
    }

    #[test]
    fn a_url_that_makes_no_sense_is_refused() {
        for url in ["", "127.0.0.1:6379", "http://127.0.0.1", "redis://", "redis-sentinel://h:1"] {
            assert!(config(&RedisOptions::new(url)).is_err(), "{url}");
        }
        let mut options = RedisOptions::new("rediss://user:secret@localhost:1/3");
        assert!(config(&options).expect("good").tls.is_some());
        options.ca = Some("/nonexistent".into());
        let error = config(&options).expect_err("no file").to_string();
        assert!(error.contains("/nonexistent") && !error.contains("secret"), "{error}");
        assert!(!format!("{options:?}").contains("secret"));
    }
}
