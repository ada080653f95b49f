//! A whole firmware update server in a program of one's own: a store that forgets, an owner with
//! a key, and one event loop per CPU.
//!
//! ```text
//! cargo run -p otter-mio --example hello
//! ```
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a person is to try what it prints")]

use otter_mio::{Options, Server};
use otter_store::{Memory, MemoryOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let memory = Memory::open(directory.path(), MemoryOptions::default())?;
    let owner = memory.operator().create_owner(None)?;
    let key = memory.operator().create_key(&owner, "hello")?.key.text();

    let server = Server::bind(Options::new("127.0.0.1:7442".parse()?))?;
    println!(
        "curl -H 'Authentication: {}' http://{}/device/register -d \
         '{{\"registration\":{{\"mac\":\"5CCF7FEE1337\",\"owner\":\"{owner}\"}}}}'",
        String::from_utf8_lossy(&key),
        server.local_addr(),
    );
    server.run(|_worker, wake| memory.store(wake))?;
    Ok(())
}
