//! Sending from one buffer.

use super::{addr::RawAddress, msg::Header, recv::Part};
use crate::{
    Buf, Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Address, Op, RawOp, Settled, keeps_buffer, lowered},
    sealed::Sealed,
    sys,
};

bitflags::bitflags! {
    /// How to send; `send(2)` describes the flags. "Do not wait" is a method, `.nonblocking()`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SendFlags: i32 {
        /// As urgent data.
        const OOB = libc::MSG_OOB;
        /// Sends all of the buffer. It is less only after an error, or when the time limit expires; a link breaks then.
        const WAITALL = libc::MSG_WAITALL;
        /// Only to hosts of directly connected networks.
        const DONTROUTE = libc::MSG_DONTROUTE;
        /// Ends a record, where the protocol has records.
        const EOR = libc::MSG_EOR;
        /// More is about to follow, so that it can share a packet. Linux only.
        #[cfg(target_os = "linux")]
        const MORE = libc::MSG_MORE;
        /// The peer has answered, so its link address need not be asked for again. Linux only.
        #[cfg(target_os = "linux")]
        const CONFIRM = libc::MSG_CONFIRM;
    }
}

impl SendFlags {
    /// As the system call takes them, after flags that were set before. Never with a signal.
    pub(super) fn over(self, before: i32) -> i32 {
        before & libc::MSG_DONTWAIT | self.bits() | sys::MSG_NOSIGNAL
    }
}

/// Sends to a connected socket: `send(2)`.
///
/// Waits for room if there is none, and may then send a part; with [`WAITALL`](SendFlags::WAITALL) it goes on to the
/// end.
/// `O_NONBLOCK` makes no difference. If the peer has closed the connection the error is `BrokenPipe`, and never a
/// signal.
///
/// ```
/// use aio::op::*;
/// use std::os::unix::net::UnixStream;
///
/// let (a, b) = UnixStream::pair()?;
/// let mut answer = [0u8; 16];
/// let (sent, received) = aio::multi((Send::new(&a, "hello").link(), Recv::new(&b, &mut answer)))?;
/// assert_eq!((sent, &answer[..received]), (5, &b"hello"[..]));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_SEND`, Linux 5.6; `send(2)` lists the errors.
#[derive(Debug)]
pub struct Send<D, B> {
    fd: D,
    buf: B,
    flags: i32,
}

impl<D: Descriptor, B: Buf> Send<D, B> {
    /// Sends the bytes of `buf`; on a datagram socket as one message.
    pub fn new(fd: D, buf: B) -> Send<D, B> {
        Send { fd, buf, flags: sys::MSG_NOSIGNAL }
    }

    /// Sends in another way.
    pub fn flags(mut self, flags: SendFlags) -> Send<D, B> {
        self.flags = flags.over(self.flags);
        self
    }

    /// Gives `WouldBlock` if there is no room at all, instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(mut self) -> Send<D, B> {
        self.flags |= libc::MSG_DONTWAIT;
        self
    }

    keeps_buffer!(buf);
}

impl<D, B> Sealed for Send<D, B> {}

impl<D: Descriptor, B: Buf> Op for Send<D, B> {
    type Output = B::Output;
    type Value = usize;

    #[inline]
    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let (buf, len) = self.buf.parts()?;
            Ok(RawOp::Send { fd, buf, len, flags: self.flags })
        })
    }

    #[inline]
    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        Ok(outcome.result()? as usize)
    }

    #[inline]
    fn output(self, len: Settled<usize>) -> B::Output {
        self.buf.into_output(len.0)
    }
}

/// Sends a message to an address: `sendto(2)`.
///
/// ```
/// use aio::op::*;
/// use std::net::UdpSocket;
///
/// let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// assert_eq!(aio::single(SendTo::new(&a, "hello", b.local_addr()?))?, 5);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_SENDMSG`, Linux 5.3; `sendmsg(2)` lists the errors.
#[derive(Debug)]
pub struct SendTo<D, B> {
    fd: D,
    buf: B,
    address: Result<RawAddress>,
    part: Part,
    header: Header,
    flags: i32,
}

impl<D: Descriptor, B: Buf> SendTo<D, B> {
    /// Sends the bytes of `buf`, as one message, to `address`.
    pub fn new(fd: D, buf: B, address: impl Into<Address>) -> SendTo<D, B> {
        let address = RawAddress::encode(&address.into());
        SendTo { fd, buf, address, part: Part::new(), header: Header::new(), flags: sys::MSG_NOSIGNAL }
    }

    /// Sends in another way.
    pub fn flags(mut self, flags: SendFlags) -> SendTo<D, B> {
        self.flags = flags.over(self.flags);
        self
    }

    /// Gives `WouldBlock` if there is no room, instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(mut self) -> SendTo<D, B> {
        self.flags |= libc::MSG_DONTWAIT;
        self
    }

    keeps_buffer!(buf);
}

impl<D, B> Sealed for SendTo<D, B> {}

impl<D: Descriptor, B: Buf> Op for SendTo<D, B> {
    type Output = B::Output;
    type Value = usize;

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let (buf, len) = self.buf.parts()?;
            let address = self.address.as_mut().map_err(|error| *error)?;
            // The kernel only reads what a message that is sent names.
            let part = self.part.set(buf.cast_mut(), len);
            self.header.set_name(address.as_mut_ptr(), address.len());
            self.header.set_parts(part, 1);
            Ok(RawOp::SendMsg { fd, msg: self.header.as_mut_ptr(), flags: self.flags })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        Ok(outcome.result()? as usize)
    }

    #[inline]
    fn output(self, len: Settled<usize>) -> B::Output {
        self.buf.into_output(len.0)
    }
}
