//! Real Redis servers for tests: one of them, a cluster, or one behind sentinels.
//!
//! Each is a `redis-server` of its own in a temporary directory, on a port of loopback that the
//! system chose and that nobody else gets meanwhile. All of them end when they are dropped.
//!
//! ```no_run
//! use otter_tests::redis::{Appends, RedisOptions, RedisServer};
//!
//! let options = RedisOptions { appends: Appends::Always, ..RedisOptions::default() };
//! let mut redis = RedisServer::start_with(options);
//! redis.call(&["SET", "a", "b"]);
//! redis.kill();
//! redis.restart();
//! assert_eq!(redis.call(&["GET", "a"]).text(), "b");
//! ```

pub mod cluster;
pub mod process;
pub mod proxy;
pub mod resp;
pub mod sentinel;
pub mod tls;

pub use cluster::RedisCluster;
pub use process::wait_for;
pub use proxy::{Proxy, Rule};
pub use resp::{Client, Value};
pub use sentinel::Sentinels;
pub use tls::Tls;

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use process::{Port, Process};

/// A server that runs until it is killed, stopped or dropped.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    options: RedisOptions,
    /// For the bus of a cluster.
    bus: Option<Port>,
}

/// How a server is set up. The default keeps nothing on disk, asks nobody for a password and
/// speaks plain TCP.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// What is written to the append-only file. Snapshots (RDB) are off.
    pub appends: Appends,
    /// `maxmemory`, with `noeviction`: beyond it, writes fail with `OOM`. None: no limit.
    pub memory_bytes_max: Option<u64>,
    /// `requirepass`: the password of the user `default`.
    pub password: Option<String>,
    /// ACL rules, each as behind `user` in a `redis.conf`: `otter on >secret ~ott:* +@all`.
    pub users: Vec<String>,
    /// Whether it speaks TLS, and then nothing else.
    pub tls: Tls,
    /// The port of the primary that it follows.
    pub replica_of: Option<u16>,
    /// Whether it listens on a Unix socket, too.
    pub unix_socket: bool,
    /// More lines for `redis.conf`.
    pub more: Vec<String>,
}

/// `appendonly` and `appendfsync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Appends {
    /// Nothing: what it knew is gone when it ends.
    #[default]
    Never,
    /// Synced once a second.
    EverySecond,
    /// Synced before each answer.
    Always,
}

impl RedisServer {
    /// Starts a server with the default options and waits until it answers.
    ///
    /// # Panics
    /// As [`RedisServer::start_with`].
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(RedisOptions::default())
    }

    /// Starts a server and waits until it answers; a replica also until it has what its primary
    /// has.
    ///
    /// # Panics
    /// If `redis-server` is not installed, or does not answer within a minute.
    #[must_use]
    pub fn start_with(options: RedisOptions) -> Self {
        Self::start_node(options, None)
    }

    /// As [`RedisServer::start_with`], as a node of a cluster if there is a port for its bus.
    fn start_node(options: RedisOptions, bus: Option<Port>) -> Self {
        let process = Process::new(&[]);
        let mut server = Self { process, options, bus };
        if server.options.tls != Tls::Off {
            tls::write_certificates(server.directory());
        }
        let config = server.config();
        server.process.write_config(&config);
        server.restart();
        if server.options.replica_of.is_some() {
            server.wait_until_synced();
        }
        server
    }

    /// Waits until this replica has what its primary has and gets all that comes.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    pub fn wait_until_synced(&self) {
        wait_for("a replica in sync", || {
            (self.info("master_link_status").as_deref() == Some("up")).then_some(())
        });
    }

    /// Starts it again on the same port and directory, after [`RedisServer::stop`] if it runs,
    /// and waits until it answers and has read its append-only file.
    ///
    /// # Panics
    /// As [`RedisServer::start_with`].
    pub fn restart(&mut self) {
        self.stop();
        self.process.start();
        let pid = self.pid().to_string();
        wait_for("redis-server to answer", || {
            self.process.assert_running();
            let mut client = self.try_client().ok()?;
            let info = client.try_call(&["INFO"]).ok()?.into_text()?;
            let is = |name, value: &str| resp::field(&info, name).as_deref() == Some(value);
            (is("process_id", &pid) && is("loading", "0")).then_some(())
        });
    }

    /// `kill -9`, and waits for the end. Nothing happens if it does not run.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end (SIGTERM) and waits for that. Nothing happens if it does not run.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Stops it where it is (SIGSTOP): connections stay open and nothing is answered. A replica
    /// falls behind.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Makes a primary of a replica (`REPLICAOF NO ONE`), for good.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub fn promote(&mut self) {
        self.options.replica_of = None;
        self.call(&["REPLICAOF", "NO", "ONE"]);
        self.call(&["CONFIG", "REWRITE"]);
    }

    /// Makes a replica of it, for good, and waits until it has what its primary has. What it
    /// knew and the primary does not know is lost.
    ///
    /// # Panics
    /// If it cannot be asked, or is not in sync within a minute.
    pub fn follow(&mut self, primary: &Self) {
        self.options.replica_of = Some(primary.port());
        self.call(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
        self.call(&["CONFIG", "REWRITE"]);
        self.wait_until_synced();
    }

    /// The process, while it runs.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its port, which stays the same.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.process.port()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// Its working directory: `redis.conf`, `redis.log`, the append-only file, certificates.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.process.directory()
    }

    /// `redis://127.0.0.1:PORT`, `rediss://` with TLS, with the password of the default user if
    /// there is one.
    #[must_use]
    pub fn url(&self) -> String {
        let password = self.options.password.as_ref();
        let credentials = password.map(|password| format!(":{password}@")).unwrap_or_default();
        self.url_with(&credentials)
    }

    /// The same for a user of [`RedisOptions::users`].
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"))
    }

    fn url_with(&self, credentials: &str) -> String {
        let scheme = if self.options.tls == Tls::Off { "redis" } else { "rediss" };
        format!("{scheme}://{credentials}{}", self.address())
    }

    /// `redis+unix:///...`, if it listens on a Unix socket.
    #[must_use]
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.unix_path().display())
    }

    /// The path of the Unix socket.
    #[must_use]
    pub fn unix_path(&self) -> PathBuf {
        self.directory().join("redis.sock")
    }

    /// A connection on which everything is allowed, whoever may do what otherwise.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn client(&self) -> Client {
        self.try_client().expect("redis-server answers")
    }

    fn try_client(&self) -> std::io::Result<Client> {
        let mut client = match self.options.tls {
            Tls::Off => Client::connect(self.address())?,
            Tls::Server | Tls::Mutual => Client::connect_tls(self.address(), self.directory())?,
        };
        client.try_call(&["AUTH", process::USER, process::PASSWORD])?;
        Ok(client)
    }

    /// One command on a connection of its own.
    ///
    /// # Panics
    /// If it does not answer, or answers with an error.
    pub fn call<A: AsRef<[u8]>>(&self, words: &[A]) -> Value {
        self.client().call(words)
    }

    /// A field of `INFO`, such as `total_commands_processed`; `None` if there is no such one, or
    /// no answer.
    #[must_use]
    pub fn info(&self, field: &str) -> Option<String> {
        let mut client = self.try_client().ok()?;
        let info = client.try_call(&["INFO", "everything"]).ok()?.into_text()?;
        resp::field(&info, field)
    }

    fn config(&self) -> String {
        let options = &self.options;
        let (port, directory) = (self.port(), self.directory());
        let mut config = process::common_config();
        let mut line = |text: std::fmt::Arguments<'_>| {
            config.write_fmt(text).expect("memory");
            config.push('\n');
        };
        match options.tls {
            Tls::Off => line(format_args!("port {port}")),
            Tls::Server | Tls::Mutual => line(format_args!("port 0\ntls-port {port}")),
        }
        line(format_args!("{}", options.tls.config(directory)));
        line(format_args!("save \"\"\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1"));
        line(format_args!("shutdown-timeout 1\nenable-debug-command local"));
        line(format_args!("masteruser {}\nmasterauth {}", process::USER, process::PASSWORD));
        line(format_args!("{}", options.appends.config()));
        if let Some(bytes) = options.memory_bytes_max {
            line(format_args!("maxmemory {bytes}\nmaxmemory-policy noeviction"));
        }
        if let Some(password) = &options.password {
            line(format_args!("requirepass {password}"));
        }
        if let Some(primary) = options.replica_of {
            line(format_args!("replicaof 127.0.0.1 {primary}"));
        }
        if let Some(bus) = &self.bus {
            line(format_args!("{}\ncluster-port {}", cluster::CONFIG, bus.number()));
        }
        if options.unix_socket {
            line(format_args!("unixsocket {}", self.unix_path().display()));
        }
        for user in &options.users {
            line(format_args!("user {user}"));
        }
        for more in &options.more {
            line(format_args!("{more}"));
        }
        config
    }
}

impl Appends {
    fn config(self) -> &'static str {
        match self {
            Self::Never => "appendonly no",
            Self::EverySecond => "appendonly yes\nappendfsync everysec",
            Self::Always => "appendonly yes\nappendfsync always",
        }
    }
}
