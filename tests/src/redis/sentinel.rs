//! A primary and its replicas behind three sentinels.

use std::io;

use super::process::{self, Process, wait_for};
use super::resp::field;
use super::{Client, RedisOptions, RedisServer, Value};

/// Servers, of which one is the primary, and three sentinels that watch them.
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<Process>,
}

impl Sentinels {
    /// Starts a primary, which is server 0, its replicas and three sentinels, and waits until
    /// each sentinel knows all of them.
    ///
    /// # Panics
    /// As [`RedisServer::start_with`].
    #[must_use]
    pub fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &RedisOptions::default())
    }

    /// The same with options for each server.
    ///
    /// # Panics
    /// As [`RedisServer::start_with`].
    #[must_use]
    pub fn start_with(replicas: usize, options: &RedisOptions) -> Self {
        let mut servers = vec![RedisServer::start_with(options.clone())];
        let primary = servers[0].port();
        for _ in 0..replicas {
            let options = RedisOptions { replica_of: Some(primary), ..options.clone() };
            servers.push(RedisServer::start_with(options));
        }
        let sentinels = (0..SENTINELS).map(|_| start_sentinel(primary)).collect();
        let all = Self { servers, sentinels };
        wait_for("the sentinels to know all", || {
            let mut sentinels = all.sentinels.iter();
            sentinels.all(|sentinel| knows(sentinel, replicas).unwrap_or(false)).then_some(())
        });
        all
    }

    /// `redis-sentinel://127.0.0.1:PORT?node=127.0.0.1:PORT&...&sentinelServiceName=otter`, which
    /// names all sentinels; the form of fred.
    #[must_use]
    pub fn url(&self) -> String {
        let addresses: Vec<_> =
            self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
        let nodes = addresses.join("&node=").replacen('&', "?", 1);
        let password = self.servers[0].options.password.as_ref();
        let credentials = password.map(|word| format!(":{word}@")).unwrap_or_default();
        format!("redis-sentinel://{credentials}{nodes}&sentinelServiceName={SERVICE}")
    }

    /// The servers; 0 was the first primary.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// A server, to kill, pause or restart it.
    ///
    /// # Panics
    /// If there is none of this number.
    #[must_use]
    pub fn server_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.servers[number]
    }

    /// The ports of the sentinels.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(Process::port).collect()
    }

    /// The number of the primary, once all sentinels agree and it says so itself.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    #[must_use]
    pub fn primary(&self) -> usize {
        wait_for("the sentinels to agree", || self.agreed())
    }

    /// The same, once it is another one than `old`.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    #[must_use]
    pub fn primary_after(&self, old: usize) -> usize {
        wait_for("another primary", || self.agreed().filter(|primary| *primary != old))
    }

    fn agreed(&self) -> Option<usize> {
        let ports: Option<Vec<_>> =
            self.sentinels.iter().map(|sentinel| primary_port(sentinel).ok()?).collect();
        let ports = ports?;
        let first = ports.first()?;
        let number = self.servers.iter().position(|server| server.port() == *first)?;
        let is_primary = self.servers[number].info("role").as_deref() == Some("master");
        (ports.iter().all(|port| port == first) && is_primary).then_some(number)
    }

    /// Has a sentinel make a replica the primary although the old one runs, and waits for that;
    /// returns the old and the new one.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    pub fn failover(&mut self) -> (usize, usize) {
        let old = self.primary();
        wait_for("a failover to be begun", || {
            // It refuses until it has seen a replica that is good for it.
            let mut client = connect(&self.sentinels[0]).ok()?;
            let asked = client.try_call(&["SENTINEL", "FAILOVER", SERVICE]).ok()?;
            asked.into_text()
        });
        (old, self.primary_after(old))
    }

    /// Kills the primary (`kill -9`) and waits until there is another one; returns the old and the
    /// new one.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    pub fn kill_primary(&mut self) -> (usize, usize) {
        let old = self.primary();
        self.servers[old].kill();
        (old, self.primary_after(old))
    }
}

fn start_sentinel(primary: u16) -> Process {
    let mut sentinel = Process::new(&["--sentinel"]);
    sentinel.write_config(&format!(
        "{}port {}\nsentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
         sentinel auth-user {SERVICE} {}\nsentinel auth-pass {SERVICE} {}\n\
         sentinel down-after-milliseconds {SERVICE} 2000\n\
         sentinel failover-timeout {SERVICE} 3000\n",
        process::common_config(),
        sentinel.port(),
        process::USER,
        process::PASSWORD,
    ));
    sentinel.start();
    let pid = sentinel.pid().to_string();
    wait_for("a sentinel to answer", || {
        sentinel.assert_running();
        let info = connect(&sentinel).ok()?.try_call(&["INFO"]).ok()?.into_text()?;
        (field(&info, "process_id")? == pid).then_some(())
    });
    sentinel
}

fn connect(sentinel: &Process) -> io::Result<Client> {
    Client::connect((std::net::Ipv4Addr::LOCALHOST, sentinel.port()).into())
}

/// Does it know the other sentinels and all replicas?
fn knows(sentinel: &Process, replicas: usize) -> io::Result<bool> {
    let mut client = connect(sentinel)?;
    let others = client.try_call(&["SENTINEL", "SENTINELS", SERVICE])?;
    let found = client.try_call(&["SENTINEL", "REPLICAS", SERVICE])?;
    Ok(others.items().len() == SENTINELS - 1 && found.items().len() == replicas)
}

fn primary_port(sentinel: &Process) -> io::Result<Option<u16>> {
    let address = connect(sentinel)?.try_call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE])?;
    Ok(match address {
        Value::List(parts) => parts.get(1).and_then(|port| port.text().parse().ok()),
        Value::Nil | Value::Integer(_) | Value::Bytes(_) | Value::Error(_) => None,
    })
}

/// What the sentinels call the servers.
const SERVICE: &str = "otter";
const SENTINELS: usize = 3;
