//! Taking TCP connections.

use super::{
    Incoming, Listener, TcpStream, ToAddrs,
    incoming::{Ahead, Listening, aborted},
    resolve::first_success,
    socket::{BACKLOG, delegated, ip, std_socket},
};
use crate::{
    Result,
    op::{self, Accept, Address, Bind, Listen, SetSockOpt, option},
    sealed::Sealed,
    single,
};
use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

/// A TCP socket that takes connections: [`std::net::TcpListener`], whose [`accept`](TcpListener::accept) waits as an
/// operation does.
///
/// ```
/// use aio::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let client = std::thread::spawn(move || TcpStream::connect(address)?.write_all(b"hello"));
///
/// for stream in listener.incoming().take(1) {
///     let mut text = String::new();
///     stream?.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
/// }
/// client.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener(Listening<std::net::TcpListener>);

std_socket!(TcpListener, std::net::TcpListener, Listening);

delegated!(TcpListener {
    /// The address that it has; with the port that the system chose, if it was bound to port 0.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`, if the descriptor is no such socket.
    fn local_addr(&self) -> SocketAddr;

    /// How many routers an IPv4 packet of a connection may pass (`IP_TTL`, `ip(7)`).
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    fn ttl(&self) -> u32;

    /// Sets [`ttl`](Self::ttl) for the connections that are accepted later: 1 to 255.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is another number.
    fn set_ttl(&self, routers: u32) -> ();
});

impl TcpListener {
    /// Makes a listener with an address, the first that can be had; see [`ListenOptions`] for more choice. Port 0 lets
    /// the system choose one.
    ///
    /// # Errors
    ///
    /// If a name cannot be [looked up](super::lookup), or for the last address: somebody listens there already
    /// ([`AddrInUse`](io::ErrorKind::AddrInUse)), it is not this machine's, the port is reserved
    /// ([`PermissionDenied`](io::ErrorKind::PermissionDenied)), and all others of `bind(2)`.
    pub fn bind(addresses: impl ToAddrs) -> io::Result<TcpListener> {
        ListenOptions::new().bind(addresses)
    }

    /// Waits for a connection and gives it with the address it comes from: `accept(2)`.
    ///
    /// # Errors
    ///
    /// An error of one connection, such as [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), does not keep the
    /// next from being accepted. With too many descriptors open (`EMFILE`) it fails until some are closed.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        if let Some(fd) = self.0.take_ahead()? {
            let stream = TcpStream::from(fd);
            let peer = stream.peer_addr().map_err(aborted)?;
            return Ok((stream, peer));
        }
        let accepted = single(Accept::new(self))?;
        let peer = ip(&accepted.peer)?;
        Ok((accepted.into(), peer))
    }

    /// The connections, one after the other, without end: it waits for each. Errors of `accept(2)` are items, but when
    /// the wait is cancelled the iterator ends. With too many descriptors open (`EMFILE`) the error comes again at
    /// once, so a server pauses before it goes on. See [`Incoming`].
    pub fn incoming(&self) -> Incoming<'_, TcpListener> {
        Incoming::new(self)
    }
}

impl Sealed for TcpListener {}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept_one(&self) -> Result<TcpStream> {
        single(Accept::new(self)).map(TcpStream::from)
    }

    fn take_ahead(&self) -> Result<Option<OwnedFd>> {
        self.0.take_ahead()
    }

    fn share(&self) -> Option<(OwnedFd, Arc<Ahead>)> {
        self.0.share()
    }

    fn accept_some(&self, most: usize) -> Result<(Option<OwnedFd>, bool)> {
        self.0.accept_some(most)
    }
}

/// How a [`TcpListener`] is made.
///
/// Two that share a port, which the system spreads the connections over:
///
/// ```
/// use aio::net::ListenOptions;
///
/// let options = ListenOptions::new().reuse_port(true);
/// let first = options.bind("127.0.0.1:0")?;
/// let second = options.bind(first.local_addr()?)?;
/// assert_eq!(first.local_addr()?, second.local_addr()?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "options do nothing until `bind` is called"]
pub struct ListenOptions {
    reuse_addr: bool,
    reuse_port: bool,
    only_v6: Option<bool>,
    backlog: u32,
}

impl ListenOptions {
    /// What [`TcpListener::bind`] does.
    pub const fn new() -> ListenOptions {
        ListenOptions { reuse_addr: true, reuse_port: false, only_v6: None, backlog: BACKLOG }
    }

    /// Whether to take an address that connections of an earlier listener still use (`SO_REUSEADDR`, `socket(7)`). On
    /// unless it is turned off, so that a server can be restarted.
    pub const fn reuse_addr(mut self, on: bool) -> ListenOptions {
        self.reuse_addr = on;
        self
    }

    /// Whether several listeners that all ask for it may have the same address (`SO_REUSEPORT`, Linux 3.9). Linux
    /// spreads the connections over them; other systems may not.
    pub const fn reuse_port(mut self, on: bool) -> ListenOptions {
        self.reuse_port = on;
        self
    }

    /// Whether an IPv6 listener does without IPv4 (`IPV6_V6ONLY`, `ipv6(7)`). Unless this is called the system decides;
    /// it means nothing to an IPv4 address.
    pub const fn only_v6(mut self, on: bool) -> ListenOptions {
        self.only_v6 = Some(on);
        self
    }

    /// How many connections may wait to be accepted: 4096 unless this is called. The system cuts it to its own limit
    /// (`net.core.somaxconn`, `listen(2)`).
    pub const fn backlog(mut self, connections: u32) -> ListenOptions {
        self.backlog = connections;
        self
    }

    /// Makes a listener with the first address that can be had.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::bind`].
    pub fn bind(&self, addresses: impl ToAddrs) -> io::Result<TcpListener> {
        first_success(addresses, |address| self.bind_to(address))
    }

    fn bind_to(&self, address: SocketAddr) -> Result<TcpListener> {
        let fd = single(op::Socket::stream_for(&address.into()))?;
        single(SetSockOpt::new(&fd, option::ReuseAddr, self.reuse_addr))?;
        if self.reuse_port {
            single(SetSockOpt::new(&fd, option::ReusePort, true))?;
        }
        if let (Some(on), SocketAddr::V6(_)) = (self.only_v6, address) {
            single(SetSockOpt::new(&fd, option::V6Only, on))?;
        }
        single(Bind::new(&fd, Address::from(address)))?;
        single(Listen::new(&fd, self.backlog))?;
        Ok(fd.into())
    }
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions::new()
    }
}
