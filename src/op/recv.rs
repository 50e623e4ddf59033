//! Receiving into one buffer.
#![allow(unsafe_code)]

use super::{addr::RawAddress, msg::Header};
use crate::{
    BufMut, Descriptor, Error, Result,
    lower::{Lower, Outcome},
    op::{Address, Fd, Op, RawOp, Settled, keeps_buffer, lowered},
    sealed::Sealed,
    sys,
};
use std::ptr;

bitflags::bitflags! {
    /// How to receive; `recv(2)` describes the flags. "Do not wait" is a method, `.nonblocking()`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RecvFlags: i32 {
        /// Leaves the data where it is, for the next receive.
        const PEEK = libc::MSG_PEEK;
        /// Waits until the buffer is full. It is less only at the end of the stream, after an error, or when the time
        /// limit expires; a link breaks then. Datagrams are not waited for: one is all there is.
        const WAITALL = libc::MSG_WAITALL;
        /// [`RecvMsg`](crate::op::RecvMsg) gives a datagram's whole length, even if it was cut off; [`Recv`] and
        /// [`RecvFrom`] count what is in the buffer. On a TCP socket it throws the bytes away instead.
        const TRUNC = libc::MSG_TRUNC;
        /// The urgent byte of a TCP stream.
        const OOB = libc::MSG_OOB;
        /// What is queued as errors (time stamps, ICMP messages), with `RecvMsg`. Linux only.
        #[cfg(target_os = "linux")]
        const ERRQUEUE = libc::MSG_ERRQUEUE;
    }
}

/// What [`Recv`] and [`RecvFrom`] have in common: one buffer to be filled from a socket.
#[derive(Debug)]
struct Target<B> {
    buf: B,
    capacity: u32,
    flags: i32,
}

impl<B: BufMut> Target<B> {
    fn new(buf: B) -> Target<B> {
        Target { buf, capacity: 0, flags: 0 }
    }

    /// Replaces the flags, but not what `.nonblocking()` has set.
    fn set_flags(&mut self, flags: RecvFlags) {
        self.flags = self.flags & libc::MSG_DONTWAIT | flags.bits();
    }

    #[inline]
    fn lower(&mut self, fd: Fd) -> Result<(*mut u8, u32)> {
        let (buf, len) = self.buf.parts_mut()?;
        self.capacity = len;
        if B::SHARED {
            self.flags |= libc::MSG_WAITALL;
            stream_only(fd)?;
        }
        if self.flags & libc::MSG_TRUNC != 0 {
            // TCP counts the bytes it throws away; `filled` must not take them for initialised ones.
            // SAFETY: the buffer is valid for writes of its length until it is settled (contract of `parts_mut`).
            unsafe { ptr::write_bytes(buf, 0, len as usize) };
        }
        Ok((buf, len))
    }

    /// With `MSG_TRUNC` the kernel's number may be more than the buffer holds.
    #[inline]
    fn filled(&mut self, result: u32) -> usize {
        let len = result.min(self.capacity) as usize;
        // SAFETY: no more than was received into the buffer, or, with TRUNC, than was zeroed beforehand.
        unsafe { self.buf.filled(len) };
        len
    }

    #[inline]
    fn output(self, len: Settled<usize>) -> B::Output {
        // SAFETY: what `filled` gave, which has told the buffer.
        unsafe { self.buf.into_output(len.0) }
    }
}

/// A datagram may be shorter than the buffer whatever the flags, and what is linked would take the rest for received.
#[cold]
fn stream_only(fd: Fd) -> Result<()> {
    match fd.socket_type() {
        Ok(libc::SOCK_STREAM) => Ok(()),
        Ok(_) => Err(Error::Unsupported(
            &"receiving into a Shared buffer needs a stream socket, for a datagram may be shorter than the buffer; \
             use Read, after which a short one breaks the chain",
        )),
        // Not a socket, or not open: the operation itself will say so.
        Err(_) => Ok(()),
    }
}

/// Receives from a socket: `recv(2)`.
///
/// Waits until there is something, and gives what there is; `O_NONBLOCK` makes no difference. Zero bytes mean that the
/// peer has ended the stream (or sent an empty datagram). A datagram that is longer than the buffer loses its end.
///
/// A short one breaks a link only with [`WAITALL`](RecvFlags::WAITALL); the end of the stream does not either. Into a
/// [`Shared`](crate::Shared) buffer it always waits for all, and is refused on datagram sockets.
///
/// ```
/// use aio::op::*;
/// use std::{io::Write, os::unix::net::UnixStream};
///
/// let (a, mut b) = UnixStream::pair()?;
/// b.write_all(b"hello")?;
/// let mut buffer = [0u8; 16];
/// assert_eq!(aio::single(Recv::new(&a, &mut buffer).flags(RecvFlags::PEEK))?, 5);
/// assert_eq!(aio::single(Recv::new(&a, &mut buffer[..2]))?, 2);
/// assert_eq!(&buffer[..5], b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_RECV`, Linux 5.6; `recv(2)` lists the errors.
#[derive(Debug)]
pub struct Recv<D, B> {
    fd: D,
    target: Target<B>,
}

impl<D: Descriptor, B: BufMut> Recv<D, B> {
    /// Receives at most as much as the buffer holds.
    pub fn new(fd: D, buf: B) -> Recv<D, B> {
        Recv { fd, target: Target::new(buf) }
    }

    /// Receives in another way.
    pub fn flags(mut self, flags: RecvFlags) -> Recv<D, B> {
        self.target.set_flags(flags);
        self
    }

    /// Gives `WouldBlock` instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(mut self) -> Recv<D, B> {
        self.target.flags |= libc::MSG_DONTWAIT;
        self
    }

    keeps_buffer!(target.buf);
}

impl<D, B> Sealed for Recv<D, B> {}

impl<D: Descriptor, B: BufMut> Op for Recv<D, B> {
    type Output = B::Output;
    type Value = usize;

    #[inline]
    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let (buf, len) = self.target.lower(fd)?;
            Ok(RawOp::Recv { fd, buf, len, flags: self.target.flags })
        })
    }

    #[inline]
    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        let len = outcome.result()?;
        Ok(self.target.filled(len))
    }

    #[inline]
    fn output(self, len: Settled<usize>) -> B::Output {
        self.target.output(len)
    }
}

/// Receives from a socket and tells from whom: `recvfrom(2)`. The output is that of [`Recv`] and the sender's address,
/// [`Address::Unnamed`] where the kernel tells none, as for streams.
///
/// ```
/// use aio::op::*;
/// use std::net::UdpSocket;
///
/// let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// b.send_to(b"hello", a.local_addr()?)?;
/// let mut buffer = [0u8; 16];
/// let (len, peer) = aio::single(RecvFrom::new(&a, &mut buffer))?;
/// assert_eq!((&buffer[..len], peer.ip()), (&b"hello"[..], Some(b.local_addr()?)));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_RECVMSG`, Linux 5.3; `recvmsg(2)` lists the errors.
#[derive(Debug)]
pub struct RecvFrom<D, B> {
    fd: D,
    target: Target<B>,
    peer: RawAddress,
    part: Part,
    header: Header,
}

/// A part of a message.
#[repr(transparent)]
pub(super) struct Part(libc::iovec);

impl Part {
    pub(super) fn new() -> Part {
        Part(libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 })
    }

    /// Where it is kept, with these bytes in it.
    pub(super) fn set(&mut self, start: *mut u8, len: u32) -> *mut libc::iovec {
        self.0 = libc::iovec { iov_base: start.cast(), iov_len: len as usize };
        &raw mut self.0
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Part")
    }
}

impl<D: Descriptor, B: BufMut> RecvFrom<D, B> {
    /// Receives at most as much as the buffer holds.
    pub fn new(fd: D, buf: B) -> RecvFrom<D, B> {
        let (peer, part, header) = (RawAddress::empty(), Part::new(), Header::new());
        RecvFrom { fd, target: Target::new(buf), peer, part, header }
    }

    /// Receives in another way.
    pub fn flags(mut self, flags: RecvFlags) -> RecvFrom<D, B> {
        self.target.set_flags(flags);
        self
    }

    /// Gives `WouldBlock` instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(mut self) -> RecvFrom<D, B> {
        self.target.flags |= libc::MSG_DONTWAIT;
        self
    }

    keeps_buffer!(target.buf);
}

impl<D, B> Sealed for RecvFrom<D, B> {}

impl<D: Descriptor, B: BufMut> Op for RecvFrom<D, B> {
    type Output = (B::Output, Address);
    type Value = (usize, Address);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let (buf, len) = self.target.lower(fd)?;
            let part = self.part.set(buf, len);
            // What the kernel put there when it ran before does not count.
            self.peer.clear();
            self.header = Header::new();
            self.header.set_name(self.peer.as_mut_ptr(), self.peer.len());
            self.header.set_parts(part, 1);
            Ok(RawOp::RecvMsg { fd, msg: self.header.as_mut_ptr(), flags: self.target.flags | sys::MSG_CMSG_CLOEXEC })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<Self::Value> {
        self.fd.finished(&outcome);
        let len = outcome.result()?;
        self.peer.set_len(self.header.name_len());
        Ok((self.target.filled(len), self.peer.decode()))
    }

    fn output(self, Settled((len, peer)): Settled<Self::Value>) -> Self::Output {
        (self.target.output(Settled(len)), peer)
    }
}
