//! Sockets with the methods of [`std::net`] and [`std::os::unix::net`], which wait as operations do.
//!
//! [`TcpListener`], [`TcpStream`], [`UdpSocket`], [`UnixListener`], [`UnixStream`] and [`UnixDatagram`] are used like
//! the types of the same names in the standard library, implement [`Read`](std::io::Read) and
//! [`Write`](std::io::Write), are `Send` and `Sync`, and convert from and into these types and
//! [`OwnedFd`](std::os::fd::OwnedFd). Whatever may wait (to connect, accept, receive, send) is an
//! [operation](crate::op) that the calling thread's engine runs.
//!
//! ```
//! use aio::net::{TcpListener, TcpStream};
//! use std::io::{Read, Write};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let mut client = TcpStream::connect(listener.local_addr()?)?;
//! let (mut server, peer) = listener.accept()?;
//! assert_eq!(peer, client.local_addr()?);
//!
//! client.write_all(b"hello")?;
//! drop(client);
//! let mut text = String::new();
//! server.read_to_string(&mut text)?;
//! assert_eq!(text, "hello");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! They are descriptors as any other, so an operation takes a reference to one: `Recv::new(&stream, …)`.
//!
//! # What differs from the standard library
//!
//! - A time limit (`set_read_timeout`, `set_write_timeout`) belongs to the value and not to the socket, so `try_clone`
//!   copies it and conversions forget it. When it is over, the error is [`TimedOut`](std::io::ErrorKind::TimedOut) and
//!   not `WouldBlock`.
//! - `O_NONBLOCK` makes no difference, so nothing here sets it. An operation with `.nonblocking()` does not wait.
//! - Names of hosts are given as [`ToAddrs`], which looks up only what is no literal address, and not on a thread that
//!   runs anything else.
//! - `incoming` ends when its wait is cancelled. In a [task](crate::coro) it accepts connections ahead of the loop
//!   that takes them; see [`Incoming`].
//! - Reading a stream into an empty buffer gives 0 at once.
//!
//! An error has the kind and the number that the system gives it; [`is_canceled`](crate::is_canceled) finds a
//! cancelled wait, and an engine that cannot be set up is an error of the first call that needs one. Writing to a
//! connection which the peer has closed is [`BrokenPipe`](std::io::ErrorKind::BrokenPipe) and never a signal.

mod chunks;
#[cfg(target_os = "linux")]
mod credentials;
mod incoming;
mod listen;
mod resolve;
mod socket;
mod split;
mod tcp;
mod udp;
mod unix;
mod unix_datagram;

pub use chunks::Chunks;
#[cfg(target_os = "linux")]
pub use credentials::Credentials;
pub use incoming::{Incoming, Listener};
pub use listen::{ListenOptions, TcpListener};
pub use resolve::{ToAddrs, lookup};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, Stream, WriteHalf};
pub use tcp::{Keepalive, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use unix_datagram::UnixDatagram;
