//! What all sockets have in common: the standard library's value, time limits, and the operations on it.
//!
//! What never waits (options, names, `shutdown`, `dup`) is a plain system call, by the standard library. It is cheaper,
//! and works in the clean-up after a cancelled wait too.

use crate::{
    Error, Result,
    buf::MAX_TRANSFER,
    op::{self, Address, Op, RecvFlags, SocketType},
    single,
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// More than most systems allow; each cuts it to its own limit (`net.core.somaxconn`).
pub(super) const BACKLOG: u32 = 4096;

/// The most parts that one message has (`IOV_MAX`).
const MAX_PARTS: usize = 1024;

/// A socket of the standard library, and how long operations on it may take.
pub(super) struct Socket<S> {
    pub(super) inner: S,
    pub(super) reading: Limit,
    pub(super) writing: Limit,
}

/// A time limit in nanoseconds; zero for none.
pub(super) struct Limit(AtomicU64);

impl Limit {
    const fn none() -> Limit {
        Limit(AtomicU64::new(0))
    }

    fn copy(&self) -> Limit {
        Limit(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }

    pub(super) fn get(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }

    pub(super) fn set(&self, limit: Option<Duration>) -> io::Result<()> {
        let nanos = match limit {
            None => 0,
            Some(limit) => u64::try_from(not_zero(limit)?.as_nanos()).unwrap_or(u64::MAX),
        };
        self.0.store(nanos, Ordering::Relaxed);
        Ok(())
    }

    fn run<O: Op>(&self, op: O) -> io::Result<O::Output> {
        Ok(within(self.get(), op)?)
    }
}

/// Refuses a limit that leaves no time at all, as the standard library does.
pub(super) fn not_zero(limit: Duration) -> Result<Duration> {
    if limit.is_zero() {
        return Err(Error::Invalid(&"a time limit of zero leaves no time at all; use None for no limit"));
    }
    Ok(limit)
}

pub(super) fn within<O: Op>(limit: Option<Duration>, op: O) -> Result<O::Output> {
    match limit {
        Some(limit) => single(op.timeout(limit)),
        None => single(op),
    }
}

impl<S: AsFd> Socket<S> {
    pub(super) fn new(inner: S) -> Socket<S> {
        Socket { inner, reading: Limit::none(), writing: Limit::none() }
    }

    /// For another descriptor of the same socket: with the same limits.
    pub(super) fn alike(&self, inner: S) -> Socket<S> {
        Socket { inner, reading: self.reading.copy(), writing: self.writing.copy() }
    }

    /// Without the type, so that operations are compiled once for all sockets.
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }

    /// Reads from a stream, where an empty buffer has nothing to wait for.
    pub(super) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() { Ok(0) } else { self.recv(buf, RecvFlags::empty()) }
    }

    /// As [`read`](Socket::read), into the first parts, as many as one operation takes.
    pub(super) fn read_vectored(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match fitting(parts.iter().map(|part| part.len())) {
            (0, _) => parts.first_mut().map_or(Ok(0), |first| self.read(first)),
            (_, 0) => Ok(0),
            (count, _) => Ok(self.reading.run(op::RecvMsg::new(self.fd(), &mut parts[..count]))?.len),
        }
    }

    pub(super) fn recv(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let len = buf.len().min(MAX_TRANSFER);
        self.reading.run(op::Recv::new(self.fd(), &mut buf[..len]).flags(flags))
    }

    pub(super) fn recv_from(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<(usize, Address)> {
        let len = buf.len().min(MAX_TRANSFER);
        self.reading.run(op::RecvFrom::new(self.fd(), &mut buf[..len]).flags(flags))
    }

    /// Writes to a stream, of which the rest can follow later.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send(&bytes[..bytes.len().min(MAX_TRANSFER)])
    }

    /// As [`write`](Socket::write), the first parts, as many as one operation takes.
    pub(super) fn write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match fitting(parts.iter().map(|part| part.len())) {
            (0, _) => self.write(parts.first().map_or(&[], |first| first)),
            (count, _) => self.writing.run(op::SendMsg::new(self.fd(), &parts[..count])),
        }
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.writing.run(op::Send::new(self.fd(), bytes))
    }

    pub(super) fn send_to(&self, bytes: &[u8], address: impl Into<Address>) -> io::Result<usize> {
        self.writing.run(op::SendTo::new(self.fd(), bytes, address))
    }

    pub(super) fn connect(&self, address: impl Into<Address>) -> Result<()> {
        single(op::Connect::new(self.fd(), address))
    }

    pub(super) fn get<O: op::SocketOption>(&self, option: O) -> io::Result<O::Value> {
        Ok(single(op::GetSockOpt::new(self.fd(), option))?)
    }
}

/// How many of the first parts one operation takes, and how many bytes they are.
fn fitting(lengths: impl Iterator<Item = usize>) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0usize);
    for len in lengths.take(MAX_PARTS) {
        match bytes.checked_add(len) {
            Some(sum) if sum <= MAX_TRANSFER => (count, bytes) = (count + 1, sum),
            _ => break,
        }
    }
    (count, bytes)
}

/// A stream socket that is connected to `address`.
pub(super) fn connected(address: &Address, limit: Option<Duration>) -> Result<OwnedFd> {
    let fd = single(op::Socket::stream_for(address))?;
    within(limit, op::Connect::new(&fd, address))?;
    Ok(fd)
}

/// A socket that has the name `address`.
pub(super) fn bound(address: &Address, kind: SocketType) -> Result<OwnedFd> {
    let fd = single(op::Socket::new(address.domain(), kind))?;
    single(op::Bind::new(&fd, address))?;
    Ok(fd)
}

/// An address that can only be one of the internet.
pub(super) fn ip(address: &Address) -> io::Result<SocketAddr> {
    const FOREIGN: &str = "the socket's peer has no internet address; this descriptor is of another kind";
    address.ip().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, FOREIGN))
}

/// What the standard library's sockets can do and be, without waiting.
macro_rules! std_socket {
    ($name:ident, $std:ty) => {
        std_socket!($name, $std, $crate::net::socket::Socket);
    };
    ($name:ident, $std:ty, $socket:path) => {
        impl $name {
            /// Another descriptor of the same socket, with the time limits that this value has now.
            ///
            /// # Errors
            ///
            /// If the process has too many descriptors (`EMFILE`); `dup(2)`.
            pub fn try_clone(&self) -> ::std::io::Result<$name> {
                Ok($name(self.0.alike(self.0.inner.try_clone()?)))
            }

            /// Takes the error that is pending on the socket, if there is one (`SO_ERROR`, `socket(7)`).
            ///
            /// # Errors
            ///
            /// Those of `getsockopt(2)`, if the descriptor is no socket.
            pub fn take_error(&self) -> ::std::io::Result<Option<::std::io::Error>> {
                self.0.inner.take_error()
            }
        }

        impl From<$std> for $name {
            /// Takes the socket over. Time limits that were set by the standard library's methods do not count here.
            fn from(socket: $std) -> $name {
                use $socket as Socket;
                $name(Socket::new(socket))
            }
        }

        impl From<$name> for $std {
            /// Gives the socket up. It has no time limits then.
            fn from(socket: $name) -> $std {
                socket.0.inner
            }
        }

        impl From<::std::os::fd::OwnedFd> for $name {
            /// Takes a descriptor over, which should be a socket of this kind: methods fail if it is not.
            fn from(fd: ::std::os::fd::OwnedFd) -> $name {
                <$std>::from(fd).into()
            }
        }

        impl From<$name> for ::std::os::fd::OwnedFd {
            fn from(socket: $name) -> ::std::os::fd::OwnedFd {
                socket.0.inner.into()
            }
        }

        impl ::std::os::fd::AsFd for $name {
            fn as_fd(&self) -> ::std::os::fd::BorrowedFd<'_> {
                self.0.inner.as_fd()
            }
        }

        impl ::std::os::fd::AsRawFd for $name {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                self.0.inner.as_raw_fd()
            }
        }

        impl ::std::os::fd::IntoRawFd for $name {
            fn into_raw_fd(self) -> ::std::os::fd::RawFd {
                self.0.inner.into_raw_fd()
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                self.0.inner.fmt(f)
            }
        }
    };
}

/// Time limits of what receives and sends.
macro_rules! time_limits {
    ($name:ident) => {
        impl $name {
            /// Limits how long each later receive may wait, or ends the limit with `None`. Counted by the monotonic
            /// clock in nanoseconds. When it is over, the receive fails with
            /// [`TimedOut`](::std::io::ErrorKind::TimedOut), has taken nothing, and can be repeated.
            ///
            /// # Errors
            ///
            /// [`InvalidInput`](::std::io::ErrorKind::InvalidInput) if the limit is zero.
            pub fn set_read_timeout(&self, limit: Option<::std::time::Duration>) -> ::std::io::Result<()> {
                self.0.reading.set(limit)
            }

            /// Limits how long each later send may wait for room, or ends the limit with `None`; see
            /// [`set_read_timeout`](Self::set_read_timeout). A send that fails with
            /// [`TimedOut`](::std::io::ErrorKind::TimedOut) has sent nothing.
            ///
            /// # Errors
            ///
            /// [`InvalidInput`](::std::io::ErrorKind::InvalidInput) if the limit is zero.
            pub fn set_write_timeout(&self, limit: Option<::std::time::Duration>) -> ::std::io::Result<()> {
                self.0.writing.set(limit)
            }

            /// How long a receive may wait; `None` for ever.
            ///
            /// # Errors
            ///
            /// None; the result is the standard library's.
            pub fn read_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>> {
                Ok(self.0.reading.get())
            }

            /// How long a send may wait for room; `None` for ever.
            ///
            /// # Errors
            ///
            /// None; the result is the standard library's.
            pub fn write_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>> {
                Ok(self.0.writing.get())
            }
        }
    };
}

/// Methods that are the standard library's, because they never wait.
macro_rules! delegated {
    ($name:ident { $($(#[$doc:meta])* fn $method:ident(&self $(, $arg:ident: $type:ty)*) -> $output:ty;)* }) => {
        impl $name {$(
            $(#[$doc])*
            pub fn $method(&self $(, $arg: $type)*) -> ::std::io::Result<$output> {
                self.0.inner.$method($($arg),*)
            }
        )*}
    };
}

/// A connection that carries bytes in both directions.
macro_rules! stream {
    ($name:ident) => {
        impl $name {
            /// Receives without taking anything away: the next read gives the same bytes (`MSG_PEEK`, `recv(2)`).
            /// Waits until there is something; 0 is the end.
            ///
            /// # Errors
            ///
            /// Those of a read.
            pub fn peek(&self, buf: &mut [u8]) -> ::std::io::Result<usize> {
                self.0.recv(buf, $crate::op::RecvFlags::PEEK)
            }

            /// Ends one direction of the connection or both, for all its clones: `shutdown(2)`. After `Write` the peer
            /// reads the end; after `Read` reads here give the end. It never waits.
            ///
            /// # Errors
            ///
            /// [`NotConnected`](::std::io::ErrorKind::NotConnected) if there is no connection any more, or it was shut
            /// down already on some systems.
            pub fn shutdown(&self, how: ::std::net::Shutdown) -> ::std::io::Result<()> {
                self.0.inner.shutdown(how)
            }

            /// Lends one half for reading and one for writing, which two scopes can use at the same time. It costs
            /// nothing.
            pub fn split(&mut self) -> ($crate::net::ReadHalf<'_, $name>, $crate::net::WriteHalf<'_, $name>) {
                $crate::net::split::lend(self)
            }

            /// Receives as [`read`](::std::io::Read::read) does, into a buffer that is taken only when something has
            /// come: one of the runtime's [pool](crate::coro::Config::pool), if it has one to spare, and otherwise one
            /// of its own. So a connection on which nothing happens holds no memory. No bytes are the end.
            ///
            /// ```
            /// use aio::{coro, net::UnixStream};
            /// use std::io::Write;
            ///
            /// coro::run(|| {
            ///     let (a, mut b) = UnixStream::pair()?;
            ///     let reader = coro::spawn(move || a.recv_pooled());
            ///     assert_eq!(coro::stats().pool.used, 0);
            ///     b.write_all(b"hello")?;
            ///     assert_eq!(&*reader.join().unwrap()?, b"hello");
            ///     Ok::<(), std::io::Error>(())
            /// })??;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            ///
            /// # Errors
            ///
            /// Those of a read.
            pub fn recv_pooled(&self) -> ::std::io::Result<$crate::PooledBuf> {
                $crate::net::chunks::recv_pooled(self)
            }

            /// Makes an iterator of it, over what the peer sends; see [`Chunks`](crate::net::Chunks).
            pub fn into_chunks(self) -> $crate::net::Chunks<$name> {
                $crate::net::Chunks::new(self)
            }

            /// Makes two halves of it that go their own ways. Dropping the one for writing ends that direction, so that
            /// the peer reads the end.
            pub fn into_split(self) -> ($crate::net::OwnedReadHalf<$name>, $crate::net::OwnedWriteHalf<$name>) {
                $crate::net::split::own(self)
            }
        }

        impl $crate::sealed::Sealed for $name {}

        impl $crate::net::Stream for $name {
            fn end_writing(&self) {
                // Nobody is left to be told, and a connection that is gone already has ended, too.
                _ = self.shutdown(::std::net::Shutdown::Write);
            }

            fn reading_limit(&self) -> Option<::std::time::Duration> {
                self.0.reading.get()
            }
        }

        stream!(@io $name);
        stream!(@io &$name);
    };
    (@io $stream:ty) => {
        impl ::std::io::Read for $stream {
            fn read(&mut self, buf: &mut [u8]) -> ::std::io::Result<usize> {
                self.0.read(buf)
            }

            fn read_vectored(&mut self, parts: &mut [::std::io::IoSliceMut<'_>]) -> ::std::io::Result<usize> {
                self.0.read_vectored(parts)
            }
        }

        impl ::std::io::Write for $stream {
            fn write(&mut self, bytes: &[u8]) -> ::std::io::Result<usize> {
                self.0.write(bytes)
            }

            fn write_vectored(&mut self, parts: &[::std::io::IoSlice<'_>]) -> ::std::io::Result<usize> {
                self.0.write_vectored(parts)
            }

            /// Does nothing: what was written is the system's already.
            fn flush(&mut self) -> ::std::io::Result<()> {
                Ok(())
            }
        }
    };
}

/// A socket that carries single messages.
macro_rules! datagrams {
    ($name:ident) => {
        impl $name {
            /// Sends one datagram to the address that the socket is connected to, waiting for room if there is none:
            /// `send(2)`. Gives the number of bytes, which is all of them.
            ///
            /// # Errors
            ///
            /// If the socket is not connected, the datagram is longer than the system allows (`EMSGSIZE`), the peer has
            /// refused an earlier one ([`ConnectionRefused`](::std::io::ErrorKind::ConnectionRefused)), or
            /// [`TimedOut`](::std::io::ErrorKind::TimedOut).
            pub fn send(&self, bytes: &[u8]) -> ::std::io::Result<usize> {
                self.0.send(bytes)
            }

            /// Receives one datagram, waiting for it: `recv(2)`. Gives the number of bytes that are in `buf`; what
            /// does not fit is lost. On a connected socket only the peer's datagrams arrive.
            ///
            /// # Errors
            ///
            /// If the peer has refused what was sent ([`ConnectionRefused`](::std::io::ErrorKind::ConnectionRefused)),
            /// or [`TimedOut`](::std::io::ErrorKind::TimedOut).
            pub fn recv(&self, buf: &mut [u8]) -> ::std::io::Result<usize> {
                self.0.recv(buf, $crate::op::RecvFlags::empty())
            }

            /// As [`recv`](Self::recv), and leaves the datagram where it is (`MSG_PEEK`).
            ///
            /// # Errors
            ///
            /// Those of [`recv`](Self::recv).
            pub fn peek(&self, buf: &mut [u8]) -> ::std::io::Result<usize> {
                self.0.recv(buf, $crate::op::RecvFlags::PEEK)
            }
        }
    };
}

pub(super) use {datagrams, delegated, std_socket, stream, time_limits};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_parts_are_taken_as_an_operation_can() {
        assert_eq!(fitting([1, 2, 3].into_iter()), (3, 6));
        assert_eq!(fitting([0; 3000].into_iter()), (MAX_PARTS, 0));
        assert_eq!(fitting([MAX_TRANSFER, 0, 1].into_iter()), (2, MAX_TRANSFER));
        assert_eq!(fitting([MAX_TRANSFER + 1, 1].into_iter()), (0, 0));
        assert_eq!(fitting([1, usize::MAX].into_iter()), (1, 1));
    }

    #[test]
    fn a_limit_is_what_it_was_set_to() {
        let limit = Limit::none();
        assert_eq!(limit.get(), None);
        for time in [Duration::from_nanos(1), Duration::from_secs(3600)] {
            limit.set(Some(time)).unwrap();
            assert_eq!((limit.get(), limit.copy().get()), (Some(time), Some(time)));
        }
        assert_eq!(limit.set(Some(Duration::ZERO)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        limit.set(Some(Duration::MAX)).unwrap();
        assert!(limit.get() > Some(Duration::from_secs(500 * 365 * 86400)));
        limit.set(None).unwrap();
        assert_eq!(limit.get(), None);
    }
}
