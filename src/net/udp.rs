//! UDP.

use super::{
    ToAddrs,
    resolve::{first, first_success},
    socket::{Socket, bound, datagrams, delegated, ip, std_socket, time_limits},
};
use crate::op::{RecvFlags, SocketType};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A UDP socket: [`std::net::UdpSocket`], which waits as operations do.
///
/// ```
/// use aio::net::UdpSocket;
///
/// let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// a.send_to(b"hello", b.local_addr()?)?;
/// let mut buffer = [0; 16];
/// let (len, from) = b.recv_from(&mut buffer)?;
/// assert_eq!((&buffer[..len], from), (&b"hello"[..], a.local_addr()?));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdpSocket(Socket<std::net::UdpSocket>);

std_socket!(UdpSocket, std::net::UdpSocket);
time_limits!(UdpSocket);
datagrams!(UdpSocket);

impl UdpSocket {
    /// Makes a socket with the first address that can be had. Port 0 lets the system choose one.
    ///
    /// # Errors
    ///
    /// If a name cannot be [looked up](super::lookup), or for the last address: another socket has it
    /// ([`AddrInUse`](io::ErrorKind::AddrInUse)), and all others of `bind(2)`.
    pub fn bind(addresses: impl ToAddrs) -> io::Result<UdpSocket> {
        first_success(addresses, |address| bound(&address.into(), SocketType::Datagram).map(UdpSocket::from))
    }

    /// Sets the address that [`send`](Self::send) sends to, and the only one that datagrams are received from:
    /// `connect(2)`. Of several addresses it is the first that the system has a route to.
    ///
    /// # Errors
    ///
    /// If a name cannot be [looked up](super::lookup), or no address can be reached.
    pub fn connect(&self, addresses: impl ToAddrs) -> io::Result<()> {
        first_success(addresses, |address| self.0.connect(address))
    }

    /// Sends one datagram to an address, the first if there are several: `sendto(2)`. Waits for room if there is none.
    /// Gives the number of bytes, which is all of them.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and if a name cannot be [looked up](super::lookup) or the address is of the other
    /// family than the socket's.
    pub fn send_to(&self, bytes: &[u8], address: impl ToAddrs) -> io::Result<usize> {
        self.0.send_to(bytes, first(address)?)
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
        Ok((len, ip(&from)?))
    }
}

delegated!(UdpSocket {
    /// The address of this socket.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`, if the descriptor is no such socket.
    fn local_addr(&self) -> SocketAddr;

    /// The address that it is connected to.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if it is not.
    fn peer_addr(&self) -> SocketAddr;

    /// Whether it may send to broadcast addresses.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    fn broadcast(&self) -> bool;

    /// Lets it send to broadcast addresses (`SO_BROADCAST`, `socket(7)`).
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`, if the descriptor is no such socket.
    fn set_broadcast(&self, on: bool) -> ();

    /// How many routers an IPv4 packet may pass (`IP_TTL`, `ip(7)`).
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    fn ttl(&self) -> u32;

    /// Sets [`ttl`](Self::ttl): 1 to 255.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is another number.
    fn set_ttl(&self, routers: u32) -> ();

    /// Receives what is sent to an IPv4 group, on the interface that has the address `interface`, or on one that the
    /// system chooses if that is unspecified (`IP_ADD_MEMBERSHIP`, `ip(7)`).
    ///
    /// # Errors
    ///
    /// If `group` is no multicast address, there is no such interface (`ENODEV`), or the socket is in it already
    /// ([`AddrInUse`](io::ErrorKind::AddrInUse)).
    fn join_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> ();

    /// Leaves a group that was joined with the same arguments.
    ///
    /// # Errors
    ///
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) if the socket is not in it.
    fn leave_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> ();

    /// Receives what is sent to an IPv6 group, on the interface with that index, or on one that the system chooses if
    /// it is 0 (`IPV6_ADD_MEMBERSHIP`, `ipv6(7)`).
    ///
    /// # Errors
    ///
    /// Those of [`join_multicast_v4`](Self::join_multicast_v4), and if the socket is not an IPv6 one.
    fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> ();

    /// Leaves a group that was joined with the same arguments.
    ///
    /// # Errors
    ///
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) if the socket is not in it.
    fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> ();

    /// Whether what is sent to an IPv4 group comes back to this machine.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    fn multicast_loop_v4(&self) -> bool;

    /// Whether what is sent to an IPv4 group is to come back to this machine (`IP_MULTICAST_LOOP`, `ip(7)`).
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`, if the descriptor is no such socket.
    fn set_multicast_loop_v4(&self, on: bool) -> ();

    /// How many routers an IPv4 packet to a group may pass.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    fn multicast_ttl_v4(&self) -> u32;

    /// How many routers an IPv4 packet to a group may pass: 0 to 255, 1 unless it is set (`IP_MULTICAST_TTL`, `ip(7)`).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is more.
    fn set_multicast_ttl_v4(&self, routers: u32) -> ();

    /// Whether what is sent to an IPv6 group comes back to this machine.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, and if the socket is not an IPv6 one.
    fn multicast_loop_v6(&self) -> bool;

    /// Whether what is sent to an IPv6 group is to come back to this machine (`IPV6_MULTICAST_LOOP`, `ipv6(7)`).
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`, and if the socket is not an IPv6 one.
    fn set_multicast_loop_v6(&self, on: bool) -> ();
});
