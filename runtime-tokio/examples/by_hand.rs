//! One connection driven by hand over a pipe in memory: a device checks in, and the exchange is
//! printed.
//!
//! ```text
//! cargo run -p otter-tokio --example by_hand
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;

use otter_store::{Memory, MemoryOptions};
use otter_tokio::{Options, Service, drive};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&mut std::io::stdout()).await
}

/// Prints what the device sends and what it is answered.
pub(crate) async fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    // A store that forgets, with an owner and a key.
    let directory = tempfile::tempdir()?;
    let memory = Memory::open(directory.path(), MemoryOptions::default())?;
    let owner = memory.operator().create_owner(None)?;
    let key = memory.operator().create_key(&owner, "by hand")?.key.text();

    // What connections share, and the task that carries their queries to the store.
    let (service, batching) = Service::new(Options::default(), |wake| memory.store(wake));
    tokio::spawn(batching);

    // One end of the pipe is the server's, the other one the device's.
    let (mut device, server) = duplex(1024);
    let driven = tokio::spawn(drive(&service, server));

    let body = format!(r#"{{"registration":{{"mac":"5CCF7FEE1337","owner":"{owner}"}}}}"#);
    let request = format!(
        "POST /device/register HTTP/1.1\r\nHost: otter\r\nAuthentication: {}\r\n\
         Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        String::from_utf8_lossy(&key),
        body.len()
    );
    device.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    device.read_to_string(&mut reply).await?;
    drop(device);
    writeln!(out, "{request}\n\n{reply}\n")?;

    // The future of a connection ends with why it was closed.
    writeln!(out, "closed: {:?}", driven.await??)?;
    Ok(())
}
