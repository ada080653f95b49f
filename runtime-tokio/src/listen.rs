//! The listening sockets: one per worker, all on one port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::Options;

/// Binds once per worker. The kernel spreads new connections over the sockets (`SO_REUSEPORT`).
pub(crate) fn bind(options: &Options) -> io::Result<Vec<TcpListener>> {
    let mut address = options.listen;
    let workers = options.workers.max(1);
    if workers > 1 && !options.port_shared {
        // `SO_REUSEPORT` would let a second server in unnoticed. A socket without it says so.
        bound(address, false)?;
    }
    let next = |_| {
        let listener = bound(address, workers > 1 || options.port_shared)?;
        // Port 0: the first socket picks, the others join it.
        address = listener.local_addr()?;
        Ok(listener)
    };
    (0..workers).map(next).collect()
}

/// Sets what every accepted socket inherits.
pub(crate) fn prepare(socket: &SockRef<'_>, options: &Options) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(options.send_buffer_bytes)?;
    socket.set_recv_buffer_size(options.receive_buffer_bytes)
}

fn bound(address: SocketAddr, port_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server need not wait for its old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port_shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
