//! Streams between processes of one machine.

use super::{
    Incoming, Listener,
    incoming::{Ahead, Listening, aborted},
    socket::{BACKLOG, Socket, bound, connected, delegated, std_socket, stream, time_limits},
};
use crate::{
    Result,
    op::{Accept, Accepted, Address, Listen, SocketType},
    sealed::Sealed,
    single,
};
use std::{
    io,
    os::{fd::OwnedFd, unix::net::SocketAddr},
    path::Path,
    sync::Arc,
};

#[cfg(target_os = "linux")]
use super::credentials::{self, Credentials};
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;

/// As the standard library writes it. What its type has no room for, a path that fills the kernel's field to the last
/// byte, counts as none.
pub(super) fn std_address(address: Address) -> io::Result<SocketAddr> {
    match address {
        Address::Unix(named) => Ok(named),
        _ => SocketAddr::from_pathname(""),
    }
}

/// A Unix socket that takes connections: [`std::os::unix::net::UnixListener`], whose [`accept`](UnixListener::accept)
/// waits as an operation does.
///
/// ```
/// use aio::net::{UnixListener, UnixStream};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("socket");
/// let listener = UnixListener::bind(&path)?;
/// let client = UnixStream::connect(&path)?;
/// let (server, peer) = listener.accept()?;
/// assert!(peer.is_unnamed());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixListener(Listening<std::os::unix::net::UnixListener>);

std_socket!(UnixListener, std::os::unix::net::UnixListener, Listening);

delegated!(UnixListener {
    /// The name that it has.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`, if the descriptor is no such socket.
    fn local_addr(&self) -> SocketAddr;
});

impl UnixListener {
    /// Makes a listener with a path, which must not exist yet and is not removed with it.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if there is a file of that name,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the path is empty or longer than the system allows (about 100
    /// bytes), and all others of `bind(2)`.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        Ok(listening(&Address::unix(path)?)?)
    }

    /// Makes a listener with an address, which may be an abstract name on Linux.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](UnixListener::bind); an unnamed address is [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixListener> {
        Ok(listening(&address.clone().into())?)
    }

    /// Waits for a connection and gives it with the address it comes from, which is unnamed for most clients:
    /// `accept(2)`.
    ///
    /// # Errors
    ///
    /// With too many descriptors open (`EMFILE`) it fails until some are closed; `accept(2)` has the rest.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        if let Some(fd) = self.0.take_ahead()? {
            let stream = UnixStream::from(fd);
            let peer = stream.peer_addr().map_err(aborted)?;
            return Ok((stream, peer));
        }
        let accepted = single(Accept::new(self))?;
        let peer = std_address(accepted.peer)?;
        Ok((accepted.fd.into(), peer))
    }

    /// The connections, one after the other, without end: it waits for each. Errors of `accept(2)` are items, but when
    /// the wait is cancelled the iterator ends. See [`Incoming`].
    pub fn incoming(&self) -> Incoming<'_, UnixListener> {
        Incoming::new(self)
    }
}

fn listening(address: &Address) -> Result<UnixListener> {
    let fd = bound(address, SocketType::Stream)?;
    single(Listen::new(&fd, BACKLOG))?;
    Ok(fd.into())
}

impl Sealed for UnixListener {}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn accept_one(&self) -> Result<UnixStream> {
        single(Accept::new(self)).map(UnixStream::from)
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

/// A connection between two processes of one machine: [`std::os::unix::net::UnixStream`], whose reads and writes wait
/// as operations do.
///
/// `&UnixStream` reads and writes as well, so two threads can share one.
///
/// ```
/// use aio::net::UnixStream;
/// use std::io::{Read, Write};
///
/// let (mut a, mut b) = UnixStream::pair()?;
/// a.write_all(b"hello")?;
/// let mut text = [0; 5];
/// b.read_exact(&mut text)?;
/// assert_eq!(&text, b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Reads and writes fail with [`TimedOut`](io::ErrorKind::TimedOut) when their time limit is over, and a write with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if nobody reads any more; `unix(7)`, `recv(2)` and `send(2)` have the
/// rest.
pub struct UnixStream(Socket<std::os::unix::net::UnixStream>);

std_socket!(UnixStream, std::os::unix::net::UnixStream);
time_limits!(UnixStream);
stream!(UnixStream);

delegated!(UnixStream {
    /// The name of this end, if it has one.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`, if the descriptor is no such socket.
    fn local_addr(&self) -> SocketAddr;

    /// The name of the other end, if it has one.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if there is no connection any more; `getpeername(2)`.
    fn peer_addr(&self) -> SocketAddr;
});

impl UnixStream {
    /// Two ends of a connection that has no name: `socketpair(2)`.
    ///
    /// # Errors
    ///
    /// If the process has too many descriptors (`EMFILE`).
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (a, b) = std::os::unix::net::UnixStream::pair()?;
        Ok((a.into(), b.into()))
    }

    /// Connects to the listener that has a path. Waits while too many others do.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if there is no such file,
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) if nobody listens there any more,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the path is empty or longer than the system allows (about 100
    /// bytes), and all others of `connect(2)`.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        Ok(connected(&Address::unix(path)?, None)?.into())
    }

    /// Connects to the listener that has an address, which may be an abstract name on Linux.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](UnixStream::connect); an unnamed address is [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub fn connect_addr(address: &SocketAddr) -> io::Result<UnixStream> {
        Ok(connected(&address.clone().into(), None)?.into())
    }

    /// Which process was at the other end when the connection was made (`SO_PEERCRED`, `unix(7)`). The kernel vouches
    /// for it. Linux only.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// let (a, _b) = aio::net::UnixStream::pair()?;
    /// assert_eq!(a.peer_cred()?.pid as u32, std::process::id());
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    #[cfg(target_os = "linux")]
    pub fn peer_cred(&self) -> io::Result<Credentials> {
        credentials::of_peer(self.as_fd())
    }
}

impl From<Accepted> for UnixStream {
    fn from(accepted: Accepted) -> UnixStream {
        accepted.fd.into()
    }
}
