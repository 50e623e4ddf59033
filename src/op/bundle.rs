//! Sending many buffers at once.

use super::{msg::Header, recv::Part, send::SendFlags, vectored::checked_parts};
use crate::{
    Buf, Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp, Settled, lowered},
    sealed::Sealed,
    sys,
};

/// Sends several buffers, one after the other, which it owns: `sendmsg(2)`.
///
/// Where [`SendMsg`](super::SendMsg) borrows its parts, this one keeps them, so that a queue without borrows can answer
/// with many [pooled buffers](crate::PooledBuf) at a time. (The kernel's own bundles take what is to be sent out of a
/// pool; this needs none, and any buffers will do.)
///
/// The output is the number of bytes, and the buffers. If some were not sent, [`advance`](Self::advance) makes it an
/// operation for the rest.
///
/// ```
/// use aio::{Queue, op::SendBundle, queue::Done};
/// use std::{io::Read, os::unix::net::UnixStream};
///
/// let (a, mut b) = UnixStream::pair()?;
/// let queue = Queue::<Done<SendBundle<UnixStream, String>>>::new(8)?;
/// queue.submit(SendBundle::new(a, vec!["one, ".to_owned(), "two".to_owned()]), |done| done)?;
/// for (_, mut done) in queue.wait(1)? {
///     assert_eq!(done.result?, 8);
///     done.op.advance(8);
///     assert!(done.op.bufs().is_empty());
/// }
/// let mut received = [0; 8];
/// b.read_exact(&mut received)?;
/// assert_eq!(&received, b"one, two");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_SENDMSG`, Linux 5.3; `sendmsg(2)` lists the errors.
#[derive(Debug)]
pub struct SendBundle<D, B> {
    fd: D,
    bufs: Vec<B>,
    /// How much of the first buffer was sent before.
    start: usize,
    parts: Vec<Part>,
    header: Header,
    flags: i32,
    zero_copy: bool,
}

impl<D: Descriptor, B: Buf> SendBundle<D, B> {
    /// Sends the buffers one after the other, at most 1024 of them; on a datagram socket as one message.
    pub fn new(fd: D, bufs: Vec<B>) -> SendBundle<D, B> {
        let parts = Vec::with_capacity(bufs.len());
        SendBundle { fd, bufs, start: 0, parts, header: Header::new(), flags: sys::MSG_NOSIGNAL, zero_copy: false }
    }

    /// Sends in another way.
    pub fn flags(mut self, flags: SendFlags) -> SendBundle<D, B> {
        self.flags = flags.over(self.flags);
        self
    }

    /// Gives `WouldBlock` if there is no room at all, instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(mut self) -> SendBundle<D, B> {
        self.flags |= libc::MSG_DONTWAIT;
        self
    }

    /// Leaves the bytes where they are until they are sent, as [`SendMsgZc`](super::SendMsgZc): `IORING_OP_SENDMSG_ZC`,
    /// Linux 6.1. Where that cannot be done they are copied.
    pub fn zero_copy(mut self) -> SendBundle<D, B> {
        self.zero_copy = true;
        self
    }

    /// The buffers.
    pub fn bufs(&self) -> &[B] {
        &self.bufs
    }

    /// Adds one at the end.
    pub fn push(&mut self, buf: B) {
        self.bufs.push(buf);
    }

    /// Takes `count` bytes off the front, which were sent, and drops the buffers that hold nothing else; also those
    /// that were empty from the start.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn advance(&mut self, count: usize) {
        let mut left = self.start + count;
        let mut whole = 0;
        for buf in &self.bufs {
            match buf.parts().map_or(0, |(_, len)| len as usize) {
                len if len <= left => (left, whole) = (left - len, whole + 1),
                _ => break,
            }
        }
        assert!(whole < self.bufs.len() || left == 0, "a bundle cannot advance by {count} bytes, it has fewer");
        self.start = left;
        self.bufs.drain(..whole);
    }

    /// Gives up the operation for its buffers.
    pub fn into_bufs(self) -> Vec<B> {
        self.bufs
    }

    /// Gives up the operation for what it works on and its buffers.
    pub fn into_parts(self) -> (D, Vec<B>) {
        (self.fd, self.bufs)
    }

    /// Names the bytes to the kernel; how many parts there are, and bytes in all.
    fn lower_parts(&mut self) -> Result<(usize, usize)> {
        let mut bytes = 0;
        self.parts.clear();
        for (at, buf) in self.bufs.iter().enumerate() {
            let (start, len) = buf.parts()?;
            // A buffer that was changed since may be shorter than what was sent of it.
            let sent = if at == 0 { self.start.min(len as usize) } else { 0 };
            let mut part = Part::new();
            // The kernel only reads what a message that is sent names.
            part.set(start.wrapping_add(sent).cast_mut(), len - sent as u32);
            self.parts.push(part);
            bytes += len as usize - sent;
        }
        Ok((self.parts.len(), bytes))
    }
}

impl<D, B> Sealed for SendBundle<D, B> {}

impl<D: Descriptor, B: Buf> Op for SendBundle<D, B> {
    type Output = (usize, Vec<B>);
    type Value = usize;

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let (parts, bytes) = self.lower_parts()?;
            let count = checked_parts(parts, bytes)?;
            self.header.set_parts(self.parts.as_mut_ptr().cast(), count);
            let (msg, flags) = (self.header.as_mut_ptr(), self.flags);
            // What comes next in the chain may write to a shared buffer, and would change what is still to be sent.
            Ok(match self.zero_copy && !B::SHARED {
                true => RawOp::SendMsgZc { fd, msg, flags },
                false => RawOp::SendMsg { fd, msg, flags },
            })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        Ok(outcome.result()? as usize)
    }

    fn output(self, len: Settled<usize>) -> (usize, Vec<B>) {
        (len.0, self.bufs)
    }
}
