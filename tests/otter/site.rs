//! Several servers over one store: what operators run once one machine does not do any more.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::admin;
use crate::device::Device;
use crate::program::{Data, Server};

/// Servers, each with a data directory of its own, and an owner with a key.
pub(crate) struct Site {
    pub(crate) places: Vec<Place>,
    pub(crate) owner: String,
    pub(crate) key: String,
}

/// Where one server runs, again and again.
pub(crate) struct Place {
    pub(crate) data: Data,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    server: Option<Server>,
}

impl Place {
    pub(crate) fn start(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut place = Self {
            data: Data::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            variables: variables.iter().map(owned).collect(),
            server: None,
        };
        place.restart();
        place
    }

    /// The server that runs.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("a server runs")
    }

    /// Takes the server out, to end it.
    pub(crate) fn take(&mut self) -> Server {
        self.server.take().expect("a server runs")
    }

    /// Starts a server as the first one was started, on another port.
    pub(crate) fn restart(&mut self) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let variables = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let variables: Vec<(&str, &str)> = variables.collect();
        self.server = Some(self.data.serve_with(&args, &variables));
    }
}

impl Site {
    /// The owner is made at the first server.
    pub(crate) fn of(places: Vec<Place>) -> Self {
        let (owner, key) = admin::owner_with_key(&places[0].server().admin);
        Self { places, owner, key }
    }

    /// `count` servers that differ in nothing.
    pub(crate) fn alike(count: usize, variables: &[(&str, &str)]) -> Self {
        Self::of((0..count).map(|_| Place::start(&[], variables)).collect())
    }

    pub(crate) fn server(&self, number: usize) -> &Server {
        self.places[number].server()
    }

    /// The `n`th device, at a server.
    pub(crate) fn device(&self, server: usize, n: u32) -> Device {
        Device::nth(self.server(server).http, &self.owner, &self.key, n)
    }

    /// Publishes for all devices at a server.
    pub(crate) fn publish(&self, server: usize, version: &str, image: &[u8]) {
        let owner = &self.owner;
        let target = format!("/releases?owner={owner}&all=true&version={version}&platform=arduino");
        admin::json(&self.server(server).admin, "POST", &target, image);
    }
}

/// Switches a device's updates on.
pub(crate) fn allow_updates(socket: &Path, udid: &str) {
    let on = b"{\"auto_update\":true}";
    admin::json(socket, "PATCH", &format!("/devices/{udid}"), on);
}

/// All devices, page by page.
pub(crate) fn all_devices(socket: &Path) -> Vec<Value> {
    let mut after = String::new();
    let mut all = Vec::new();
    loop {
        let page = admin::json(socket, "GET", &format!("/devices?limit=1000{after}"), b"");
        let page = page.as_array().expect("a list");
        let Some(last) = page.last() else { return all };
        after = format!("&after={}", crate::program::text(last, "udid"));
        all.extend_from_slice(page);
    }
}

/// Waits for its turn: tests that load the whole machine, and those that promise that something is
/// soon, do not run at the same time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number from the environment: more than what continuous integration needs.
pub(crate) fn wanted(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}
