//! Making and connecting sockets.

use super::{addr::RawAddress, open::owned};
use crate::{
    Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Address, Direct, Op, RawOp, Target, lowered},
    sealed::Sealed,
    sys,
};
use std::{
    net::TcpStream,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

/// The family of addresses that a socket uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Domain {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 unless [`V6Only`](crate::op::option::V6Only) is set.
    V6,
    /// Sockets of this machine: `unix(7)`.
    Unix,
    /// Another family, by the system's number.
    Other(i32),
}

impl Domain {
    fn number(self) -> i32 {
        match self {
            Domain::V4 => libc::AF_INET,
            Domain::V6 => libc::AF_INET6,
            Domain::Unix => libc::AF_UNIX,
            Domain::Other(number) => number,
        }
    }
}

/// How a socket carries data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketType {
    /// A connection that carries bytes, such as TCP.
    Stream,
    /// Single messages, such as UDP.
    Datagram,
    /// A connection that carries messages.
    SeqPacket,
    /// Packets of the protocol itself; needs privileges.
    Raw,
    /// Another type, by the system's number.
    Other(i32),
}

impl SocketType {
    fn number(self) -> i32 {
        match self {
            SocketType::Stream => libc::SOCK_STREAM,
            SocketType::Datagram => libc::SOCK_DGRAM,
            SocketType::SeqPacket => libc::SOCK_SEQPACKET,
            SocketType::Raw => libc::SOCK_RAW,
            SocketType::Other(number) => number,
        }
    }

    pub(super) fn from_number(number: i32) -> SocketType {
        match number {
            libc::SOCK_STREAM => SocketType::Stream,
            libc::SOCK_DGRAM => SocketType::Datagram,
            libc::SOCK_SEQPACKET => SocketType::SeqPacket,
            libc::SOCK_RAW => SocketType::Raw,
            other => SocketType::Other(other),
        }
    }
}

/// Makes a socket: `socket(2)`. It is closed on `exec`.
///
/// ```
/// use aio::op::*;
///
/// let udp = aio::single(Socket::new(Domain::V4, SocketType::Datagram))?;
/// let udp = std::net::UdpSocket::from(udp);
/// # Ok::<(), aio::Error>(())
/// ```
///
/// `IORING_OP_SOCKET`, Linux 5.19; by an ordinary system call on older kernels.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    pub(super) domain: Domain,
    pub(super) kind: SocketType,
    protocol: i32,
}

impl Socket {
    /// With the usual protocol for domain and type.
    pub const fn new(domain: Domain, kind: SocketType) -> Socket {
        Socket { domain, kind, protocol: 0 }
    }

    /// A TCP socket, or the Unix socket that corresponds to it, for this address.
    pub fn stream_for(address: &Address) -> Socket {
        Socket::new(address.domain(), SocketType::Stream)
    }

    /// A UDP socket, or the Unix socket that corresponds to it, for this address.
    pub fn datagram_for(address: &Address) -> Socket {
        Socket::new(address.domain(), SocketType::Datagram)
    }

    /// With another protocol, by the system's number (`IPPROTO_ICMP`, …).
    pub const fn protocol(mut self, protocol: i32) -> Socket {
        self.protocol = protocol;
        self
    }

    /// Makes it in the queue's table of files: the value is a [`FixedFile`](crate::FixedFile). See [`Direct`].
    pub fn direct(self) -> Direct<Socket> {
        Direct::new(self)
    }
}

impl Sealed for Socket {}

impl Op for Socket {
    gives!(OwnedFd);

    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        let kind = self.kind.number() | sys::SOCK_CLOEXEC;
        RawOp::Socket { domain: self.domain.number(), kind, protocol: self.protocol, target: Target::Table }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<OwnedFd> {
        outcome.result().map(owned)
    }
}

/// Gives a socket its address: `bind(2)`.
///
/// Port 0 lets the system choose; `local_addr` of the standard library's types tells what it chose.
///
/// ```
/// use aio::op::*;
///
/// let socket = aio::single(Socket::new(Domain::V4, SocketType::Stream))?;
/// aio::multi((Bind::new(&socket, ([127, 0, 0, 1], 0)).link(), Listen::new(&socket, 128)))?;
/// let listener = std::net::TcpListener::from(socket);
/// assert_ne!(listener.local_addr()?.port(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_BIND`, Linux 6.11; by an ordinary system call on older kernels.
#[derive(Debug)]
pub struct Bind<D> {
    fd: D,
    address: Result<RawAddress>,
}

impl<D: Descriptor> Bind<D> {
    /// A path of a Unix socket must not exist yet, and is not removed with the socket.
    pub fn new(fd: D, address: impl Into<Address>) -> Bind<D> {
        Bind { fd, address: RawAddress::encode(&address.into()) }
    }
}

impl<D> Sealed for Bind<D> {}

impl<D: Descriptor> Op for Bind<D> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let address = self.address.as_ref().map_err(|error| *error)?;
            Ok(RawOp::Bind { fd, addr: address.as_ptr(), len: address.len() })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        self.fd.finished(&outcome);
        outcome.unit()
    }
}

/// Lets a bound socket take connections: `listen(2)`. See [`Bind`] for an example.
///
/// `IORING_OP_LISTEN`, Linux 6.11; by an ordinary system call on older kernels.
#[derive(Debug)]
pub struct Listen<D> {
    fd: D,
    backlog: u32,
}

impl<D: Descriptor> Listen<D> {
    /// `backlog` connections may wait to be accepted; the system caps it (`net.core.somaxconn`).
    pub fn new(fd: D, backlog: u32) -> Listen<D> {
        Listen { fd, backlog }
    }
}

impl<D> Sealed for Listen<D> {}

impl<D: Descriptor> Op for Listen<D> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            Ok(RawOp::Listen { fd, backlog: self.backlog.min(i32::MAX as u32) as i32 })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        self.fd.finished(&outcome);
        outcome.unit()
    }
}

/// A connection that was accepted. It turns into what the standard library has for it with `into()`.
#[derive(Debug)]
pub struct Accepted {
    /// The connection. Dropping it closes it.
    pub fd: OwnedFd,
    /// Who connected; [`Address::Unnamed`] for most Unix sockets.
    pub peer: Address,
}

impl AsFd for Accepted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

macro_rules! from_accepted {
    ($($target:ty),*) => {$(
        impl From<Accepted> for $target {
            fn from(accepted: Accepted) -> $target {
                accepted.fd.into()
            }
        }
    )*};
}

from_accepted!(OwnedFd, TcpStream, UnixStream);

/// Accepts a connection: `accept4(2)`. The new descriptor is closed on `exec`.
///
/// Waits for one; `O_NONBLOCK` on the listener makes no difference.
///
/// ```
/// use aio::op::*;
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let accepted = aio::single(Accept::new(&listener))?;
/// assert_eq!(accepted.peer.ip(), Some(client.local_addr()?));
/// let server: TcpStream = accepted.into();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_ACCEPT`, Linux 5.5; `accept(2)` lists the errors.
#[derive(Debug)]
pub struct Accept<D> {
    pub(super) fd: D,
    pub(super) peer: RawAddress,
    nowait: bool,
}

impl<D: Descriptor> Accept<D> {
    /// Takes a connection of a listening socket.
    pub fn new(fd: D) -> Accept<D> {
        Accept { fd, peer: RawAddress::empty(), nowait: false }
    }

    /// Gives `WouldBlock` instead of waiting. It has nothing to do with the new connection's `O_NONBLOCK`, which is not
    /// set.
    pub fn nonblocking(mut self) -> Accept<D> {
        self.nowait = true;
        self
    }

    /// Puts the connection into the queue's table of files: the value is an
    /// [`AcceptedFile`](crate::op::AcceptedFile). See [`Direct`].
    pub fn direct(self) -> Direct<Accept<D>> {
        Direct::new(self)
    }

    /// Gives up the operation for what it works on.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

impl<D> Sealed for Accept<D> {}

impl<D: Descriptor> Op for Accept<D> {
    gives!(Accepted);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            // It may hold the peer of an earlier run, whose address was shorter.
            self.peer.clear();
            let (addr, len) = (self.peer.as_mut_ptr(), self.peer.len_mut_ptr());
            Ok(RawOp::Accept { fd, addr, len, flags: sys::SOCK_CLOEXEC, nowait: self.nowait, target: Target::Table })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<Accepted> {
        self.fd.finished(&outcome);
        let fd = owned(outcome.result()?);
        Ok(Accepted { fd, peer: self.peer.decode() })
    }
}

/// Connects a socket: `connect(2)`.
///
/// Waits until the connection stands or has failed. After [`Op::timeout`] or a failure the socket is of no use any
/// more. On a datagram socket it sets the address that [`Send`](crate::op::Send) sends to and [`Recv`](crate::op::Recv)
/// receives from.
///
/// ```
/// use aio::op::*;
/// use std::{net::TcpListener, time::Duration};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let socket = aio::single(Socket::new(Domain::V4, SocketType::Stream))?;
/// let connect = Connect::new(&socket, listener.local_addr()?).timeout(Duration::from_secs(3));
/// aio::multi((connect.link(), Send::new(&socket, "hello")))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_CONNECT`, Linux 5.5; `connect(2)` lists the errors.
#[derive(Debug)]
pub struct Connect<D> {
    fd: D,
    address: Result<RawAddress>,
}

impl<D: Descriptor> Connect<D> {
    /// To a listening socket, or to a datagram socket.
    pub fn new(fd: D, address: impl Into<Address>) -> Connect<D> {
        Connect { fd, address: RawAddress::encode(&address.into()) }
    }

    /// Gives up the operation for what it works on.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

impl<D> Sealed for Connect<D> {}

impl<D: Descriptor> Op for Connect<D> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let address = self.address.as_ref().map_err(|error| *error)?;
            Ok(RawOp::Connect { fd, addr: address.as_ptr(), len: address.len() })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        self.fd.finished(&outcome);
        outcome.unit()
    }
}

/// Ends one or both directions of a connection: `shutdown(2)`. The descriptor stays open.
///
/// ```
/// use aio::op::*;
/// use std::os::unix::net::UnixStream;
///
/// let (a, b) = UnixStream::pair()?;
/// aio::single(Shutdown::new(&a, std::net::Shutdown::Write))?;
/// assert_eq!(aio::single(Recv::new(&b, &mut [0u8; 8]))?, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_SHUTDOWN`, Linux 5.11.
#[derive(Debug)]
pub struct Shutdown<D> {
    fd: D,
    how: std::net::Shutdown,
}

impl<D: Descriptor> Shutdown<D> {
    /// After `Write` the peer sees the end; after `Read` receiving gives the end.
    pub fn new(fd: D, how: std::net::Shutdown) -> Shutdown<D> {
        Shutdown { fd, how }
    }

    /// Gives up the operation for what it works on.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

impl<D> Sealed for Shutdown<D> {}

impl<D: Descriptor> Op for Shutdown<D> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let how = match self.how {
                std::net::Shutdown::Read => libc::SHUT_RD,
                std::net::Shutdown::Write => libc::SHUT_WR,
                std::net::Shutdown::Both => libc::SHUT_RDWR,
            };
            Ok(RawOp::Shutdown { fd, how })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        self.fd.finished(&outcome);
        outcome.unit()
    }
}
