//! TCP connections.

use super::{
    ToAddrs,
    resolve::first_success,
    socket::{Socket, connected, delegated, not_zero, std_socket, stream, time_limits},
};
use crate::{
    op::{Accepted, SetSockOpt, option},
    single,
};
use std::{io, net::SocketAddr, time::Duration};

/// A TCP connection: [`std::net::TcpStream`], whose reads and writes wait as operations do.
///
/// `&TcpStream` reads and writes as well, so two threads can share one. Dropping it closes it; see
/// [`set_linger`](TcpStream::set_linger).
///
/// ```
/// use aio::net::{TcpListener, TcpStream};
/// use std::{io::{Read, Write}, time::Duration};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(("localhost", listener.local_addr()?.port()))?;
/// client.set_nodelay(true)?;
/// client.set_read_timeout(Some(Duration::from_millis(5)))?;
///
/// let (mut server, _) = listener.accept()?;
/// let mut answer = [0; 5];
/// let nothing = client.read(&mut answer).unwrap_err();
/// assert_eq!(nothing.kind(), std::io::ErrorKind::TimedOut);
///
/// client.set_read_timeout(None)?;
/// server.write_all(b"hello")?;
/// client.read_exact(&mut answer)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Reads and writes fail with [`TimedOut`](io::ErrorKind::TimedOut) when their time limit is over, with
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) if the peer has thrown the connection away, and a write with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if nobody reads any more; `tcp(7)`, `recv(2)` and `send(2)` have the rest.
pub struct TcpStream(Socket<std::net::TcpStream>);

std_socket!(TcpStream, std::net::TcpStream);
time_limits!(TcpStream);
stream!(TcpStream);

delegated!(TcpStream {
    /// The address of this end.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`, if the descriptor is no such socket.
    fn local_addr(&self) -> SocketAddr;

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if there is no connection any more; `getpeername(2)`.
    fn peer_addr(&self) -> SocketAddr;

    /// Whether small pieces are sent at once.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    fn nodelay(&self) -> bool;

    /// Sends small pieces at once instead of gathering them until the peer has acknowledged what was sent before
    /// (`TCP_NODELAY`, `tcp(7)`).
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`, if the descriptor is no such socket.
    fn set_nodelay(&self, on: bool) -> ();

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
});

impl TcpStream {
    /// Connects to the first address that answers; each is tried until it fails by itself. See
    /// [`connect_timeout`](TcpStream::connect_timeout) for less patience.
    ///
    /// # Errors
    ///
    /// If a name cannot be [looked up](super::lookup), or for the last address: nobody listens there
    /// ([`ConnectionRefused`](io::ErrorKind::ConnectionRefused)), nothing answers
    /// ([`TimedOut`](io::ErrorKind::TimedOut), after minutes), and all others of `connect(2)`.
    pub fn connect(addresses: impl ToAddrs) -> io::Result<TcpStream> {
        first_success(addresses, |address| connected(&address.into(), None).map(TcpStream::from))
    }

    /// Connects to an address if that takes no longer than `limit`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) when the time is over, [`InvalidInput`](io::ErrorKind::InvalidInput) if it
    /// is zero, and those of [`connect`](TcpStream::connect).
    pub fn connect_timeout(address: &SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        Ok(connected(&(*address).into(), Some(not_zero(limit)?))?.into())
    }

    /// How long closing waits for the peer to take what was sent (`SO_LINGER`, `socket(7)`); `None` if not at all.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.0.get(option::Linger)
    }

    /// Sets [`linger`](Self::linger), in whole seconds, rounded up. With zero, closing throws away what was not sent
    /// yet and resets the connection. With more, dropping the last descriptor may block the thread for that long.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is more than 68 years; those of `setsockopt(2)`.
    pub fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        Ok(single(SetSockOpt::new(self, option::Linger, time))?)
    }

    /// How an idle connection is probed; `None` if it is not.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`, if the descriptor is no such socket.
    pub fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        if !self.0.get(option::KeepAlive)? {
            return Ok(None);
        }
        Ok(Some(Keepalive {
            idle: self.0.get(option::KeepIdle)?,
            interval: self.0.get(option::KeepInterval)?,
            count: self.0.get(option::KeepCount)?,
        }))
    }

    /// Probes an idle connection, so as to notice that the peer is gone although nothing is sent: reads and writes then
    /// fail with [`TimedOut`](io::ErrorKind::TimedOut), by the system's `ETIMEDOUT`. `None` ends it.
    ///
    /// ```
    /// use aio::net::{Keepalive, TcpListener, TcpStream};
    /// use std::time::Duration;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_keepalive(Some(Keepalive { idle: Duration::from_secs(60), ..Keepalive::default() }))?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if a number is zero or more than the system allows (on Linux 32767
    /// seconds, 127 probes); those of `setsockopt(2)`.
    pub fn set_keepalive(&self, probes: Option<Keepalive>) -> io::Result<()> {
        if let Some(Keepalive { idle, interval, count }) = probes {
            single(SetSockOpt::new(self, option::KeepIdle, idle))?;
            single(SetSockOpt::new(self, option::KeepInterval, interval))?;
            single(SetSockOpt::new(self, option::KeepCount, count))?;
        }
        Ok(single(SetSockOpt::new(self, option::KeepAlive, probes.is_some()))?)
    }
}

impl From<Accepted> for TcpStream {
    fn from(accepted: Accepted) -> TcpStream {
        accepted.fd.into()
    }
}

/// How an idle TCP connection is probed: [`TcpStream::set_keepalive`]. `tcp(7)` describes the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long the connection is idle before the first probe (`TCP_KEEPIDLE`), in whole seconds, rounded up.
    pub idle: Duration,
    /// The time between two probes (`TCP_KEEPINTVL`), in whole seconds, rounded up.
    pub interval: Duration,
    /// How many probes may go unanswered before the connection is given up (`TCP_KEEPCNT`).
    pub count: u32,
}

impl Default for Keepalive {
    /// Two hours, 75 seconds, nine probes: what Linux does unless it is configured otherwise.
    fn default() -> Keepalive {
        Keepalive { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), count: 9 }
    }
}
