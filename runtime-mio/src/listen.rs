//! The listening sockets: one per worker, all on one port. Public for servers that serve the same
//! port in another way, such as `otter serve --runtime tokio`.

use std::io;
use std::net::{SocketAddr, TcpListener};

use otter_protocol::Security;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::Options;

/// The listening sockets of one worker, and what protects their connections.
pub type Listeners = Vec<(TcpListener, Security)>;

/// Binds each address once per worker. The kernel spreads new connections over the sockets
/// (`SO_REUSEPORT`), so workers neither share a queue nor wake each other. [`listen`] comes next,
/// or [`crate::Server::with_listeners`], which calls it.
///
/// # Errors
/// An address is in use or not ours, or the process may not open as many descriptors.
///
/// ```
/// let mut options = otter_mio::Options::new("127.0.0.1:0".parse()?);
/// options.workers = 2;
/// let listeners = otter_mio::bind(&options)?;
/// assert_eq!(listeners[0][0].0.local_addr()?, listeners[1][0].0.local_addr()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn bind(options: &Options) -> io::Result<Vec<Listeners>> {
    let mut of_workers: Vec<Listeners> = Vec::new();
    of_workers.resize_with(options.workers.max(1), Vec::new);
    let is_shared = of_workers.len() > 1 || options.port_shared;
    for (address, security) in &options.listen {
        let mut address = *address;
        if is_shared && !options.port_shared {
            // `SO_REUSEPORT` would let a second server in unnoticed, and every other device with
            // it. A socket without it says so; nobody is listening on it, so the port is free
            // again.
            bound(address, false)?;
        }
        for listeners in &mut of_workers {
            let socket = bound(address, is_shared)?;
            // Port 0: the first socket picks, the others join it.
            address = socket.local_addr()?;
            listeners.push((socket, security.clone()));
        }
    }
    Ok(of_workers)
}

/// Sets what every accepted socket inherits, so that accepting costs one system call, and listens.
///
/// `TCP_DEFER_ACCEPT`, which hands a connection over only when its request is there, is not set.
/// With it a connection whose request is still on its way when the server is told to stop, and the
/// listening socket is closed, is lost: nobody has accepted it, and the request meets a reset. It
/// would save 3.5 % of the CPU time of a check-in with `Connection: close`. Who wants it lets the
/// service manager set it (`DeferAcceptSec=1`) and hand the socket over:
/// [`crate::Server::with_listeners`].
///
/// # Errors
/// The system does not take what the options say.
pub fn listen(listener: &TcpListener, options: &Options) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(options.send_buffer_bytes)?;
    socket.set_recv_buffer_size(options.receive_buffer_bytes)?;
    socket.listen(options.backlog)
}

fn bound(address: SocketAddr, port_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server need not wait for its old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port_shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
