//! What stands between a client and the server and looks at the records.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::client::{Gauge, dial};

/// Passes connections on to a server, with as little room on the way as the kernel allows.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    longest: Arc<AtomicUsize>,
}

impl Relay {
    /// Starts one, which ends with the process.
    pub(super) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let longest = Arc::new(AtomicUsize::new(0));
        let noted = Arc::clone(&longest);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, noted) = (client.expect("a client"), Arc::clone(&noted));
                let server = dial(server, Some(1));
                let (from, to) = (client.try_clone(), server.try_clone());
                let (from, to) = (from.expect("a descriptor"), to.expect("a descriptor"));
                thread::spawn(move || pass(from, to, |_| {}));
                thread::spawn(move || {
                    let mut gauge = Gauge::new(usize::MAX);
                    pass(server, client, |bytes| {
                        gauge.see(bytes).expect("any length");
                        noted.fetch_max(gauge.longest, Ordering::Relaxed);
                    });
                });
            }
        });
        Self { address, longest }
    }

    /// The longest record that the server has sent since this was asked last, with its header.
    pub(super) fn longest(&self) -> usize {
        self.longest.swap(0, Ordering::Relaxed)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 512];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        look(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
