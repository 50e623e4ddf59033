//! Datagrams between processes of one machine.

use super::{
    socket::{Socket, bound, datagrams, delegated, std_socket, time_limits},
    unix::std_address,
};
use crate::op::{Address, RecvFlags, SocketType};
use std::{io, net::Shutdown, os::unix::net::SocketAddr, path::Path};

/// A Unix socket for datagrams: [`std::os::unix::net::UnixDatagram`], which waits as operations do. None is lost: who
/// sends waits for room.
///
/// ```
/// use aio::net::UnixDatagram;
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("socket");
/// let (server, client) = (UnixDatagram::bind(&path)?, UnixDatagram::unbound()?);
/// client.send_to(b"hello", &path)?;
/// let mut buffer = [0; 16];
/// let (len, from) = server.recv_from(&mut buffer)?;
/// assert!(&buffer[..len] == b"hello" && from.is_unnamed());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixDatagram(Socket<std::os::unix::net::UnixDatagram>);

std_socket!(UnixDatagram, std::os::unix::net::UnixDatagram);
time_limits!(UnixDatagram);
datagrams!(UnixDatagram);

delegated!(UnixDatagram {
    /// The name that it has, if any.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`, if the descriptor is no such socket.
    fn local_addr(&self) -> SocketAddr;

    /// The name of the socket that it is connected to, if it has one.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if it is not connected.
    fn peer_addr(&self) -> SocketAddr;

    /// Ends receiving, sending or both: `shutdown(2)`. It never waits.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if it is not connected.
    fn shutdown(&self, how: Shutdown) -> ();
});

impl UnixDatagram {
    /// Two sockets that are connected to each other and have no names: `socketpair(2)`.
    ///
    /// # Errors
    ///
    /// If the process has too many descriptors (`EMFILE`).
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (a, b) = std::os::unix::net::UnixDatagram::pair()?;
        Ok((a.into(), b.into()))
    }

    /// A socket without a name, which can send but not be sent to.
    ///
    /// # Errors
    ///
    /// If the process has too many descriptors (`EMFILE`).
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(std::os::unix::net::UnixDatagram::unbound()?.into())
    }

    /// Makes a socket with a path, which must not exist yet and is not removed with it.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if there is a file of that name,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the path is empty or longer than the system allows (about 100
    /// bytes), and all others of `bind(2)`.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        Ok(bound(&Address::unix(path)?, SocketType::Datagram)?.into())
    }

    /// Makes a socket with an address, which may be an abstract name on Linux.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](UnixDatagram::bind); an unnamed address is [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixDatagram> {
        Ok(bound(&address.clone().into(), SocketType::Datagram)?.into())
    }

    /// Sets the socket that [`send`](Self::send) sends to, by its path: `connect(2)`.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if there is no such file,
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) if no socket has it any more,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the path is empty or longer than the system allows (about 100
    /// bytes).
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        Ok(self.0.connect(Address::unix(path)?)?)
    }

    /// Sets the socket that [`send`](Self::send) sends to, by its address.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](UnixDatagram::connect); an unnamed address is
    /// [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub fn connect_addr(&self, address: &SocketAddr) -> io::Result<()> {
        Ok(self.0.connect(address.clone())?)
    }

    /// Sends one datagram to the socket that has a path: `sendto(2)`. Waits for room if there is none. Gives the number
    /// of bytes, which is all of them.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect) and of [`send`](Self::send).
    pub fn send_to(&self, bytes: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        self.0.send_to(bytes, Address::unix(path)?)
    }

    /// Sends one datagram to the socket that has an address; see [`send_to`](Self::send_to).
    ///
    /// # Errors
    ///
    /// Those of [`send_to`](Self::send_to).
    pub fn send_to_addr(&self, bytes: &[u8], address: &SocketAddr) -> io::Result<usize> {
        self.0.send_to(bytes, address.clone())
    }

    /// Receives one datagram, waiting for it, and tells who sent it: `recvfrom(2)`. Gives the number of bytes that are
    /// in `buf`; what does not fit is lost.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive(buf, RecvFlags::empty())
    }

    /// As [`recv_from`](Self::recv_from), and leaves the datagram where it is (`MSG_PEEK`).
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive(buf, RecvFlags::PEEK)
    }

    fn receive(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<(usize, SocketAddr)> {
        let (len, from) = self.0.recv_from(buf, flags)?;
        Ok((len, std_address(from)?))
    }
}
