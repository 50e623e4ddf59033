//! A counting semaphore that operations can wait for.
#![allow(unsafe_code)]

use crate::{
    Errno, Error, Result,
    lower::{Lower, Outcome},
    op::{CURRENT_POSITION, Fd, Op, RawOp, open::owned},
    sealed::Sealed,
    sys,
};
use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

/// A counting semaphore: any thread notifies, operations wait.
///
/// Each [`notify`](EventSource::notify), or [`Notify`], lets one [`WaitEvent`] end; none is lost, in whichever order
/// they come. It is closed like any descriptor, by dropping it or by [`Close`](super::Close).
///
/// ```
/// use aio::op::*;
///
/// let source = EventSource::new()?;
/// std::thread::scope(|s| {
///     s.spawn(|| source.notify());
///     aio::single(WaitEvent::new(&source))
/// })?;
/// assert!(!source.try_wait()?);
/// aio::multi((Notify::new(&source).link(), WaitEvent::new(&source).link(), Close::new(EventSource::new()?)))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// An `eventfd(2)` with `EFD_SEMAPHORE` on Linux, a pipe elsewhere.
pub struct EventSource {
    receive: OwnedFd,
    /// Where it is not the same descriptor.
    send: Option<OwnedFd>,
}

/// One notification, as it is written.
static ONE: [u8; 8] = 1u64.to_ne_bytes();

impl EventSource {
    /// A semaphore that counts zero.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE` or `ENOMEM`, as `eventfd(2)`.
    pub fn new() -> Result<EventSource> {
        let [receive, send] = sys::semaphore().map_err(|error| Error::Os(Errno::new(-error)))?;
        let other = (send != receive).then(|| owned(send as u32));
        Ok(EventSource { receive: owned(receive as u32), send: other })
    }

    /// Adds one, at once, from any thread. Async-signal-safe.
    pub fn notify(&self) {
        // SAFETY: the bytes are static. It fails only if the count has reached its limit of 2⁶⁴ − 2.
        unsafe { libc::write(self.sender(), ONE.as_ptr().cast(), sys::SEMAPHORE_UNIT) };
    }

    /// Takes one, if there is any, without waiting.
    ///
    /// # Errors
    ///
    /// As `read(2)`.
    pub fn try_wait(&self) -> Result<bool> {
        let mut unit = [0u8; 8];
        // SAFETY: the buffer is a local, and the descriptor does not block.
        let count = unsafe { libc::read(self.receive.as_raw_fd(), unit.as_mut_ptr().cast(), sys::SEMAPHORE_UNIT) };
        match sys::ret_len(count) {
            error if error == -libc::EAGAIN => Ok(false),
            error if error < 0 => Err(Error::Os(Errno::new(-error))),
            // Only if somebody has put another file in its place. Nothing was taken, and a loop that empties it ends.
            0 => Ok(false),
            _ => Ok(true),
        }
    }

    fn sender(&self) -> RawFd {
        self.send.as_ref().unwrap_or(&self.receive).as_raw_fd()
    }
}

/// The descriptor that is readable while the count is not zero.
impl AsFd for EventSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receive.as_fd()
    }
}

impl From<EventSource> for OwnedFd {
    fn from(source: EventSource) -> OwnedFd {
        source.receive
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource").field("fd", &self.receive).finish()
    }
}

/// Adds one to an [`EventSource`], in its turn.
///
/// `IORING_OP_WRITE` to an `eventfd(2)`, Linux 5.6.
#[derive(Debug)]
pub struct Notify<'e> {
    source: &'e EventSource,
}

impl<'e> Notify<'e> {
    /// Notifies `source`.
    pub fn new(source: &'e EventSource) -> Notify<'e> {
        Notify { source }
    }
}

impl Sealed for Notify<'_> {}

impl Op for Notify<'_> {
    gives!(());

    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        let (fd, len) = (Fd::new(self.source.sender()), sys::SEMAPHORE_UNIT as u32);
        RawOp::Write { fd, buf: ONE.as_ptr(), len, offset: CURRENT_POSITION, nowait: false, buffer: 0 }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        outcome.unit()
    }
}

/// Waits until an [`EventSource`] counts one or more, and takes one.
///
/// `IORING_OP_READ` of an `eventfd(2)`, Linux 5.6.
#[derive(Debug)]
pub struct WaitEvent<'e> {
    source: &'e EventSource,
    unit: [u8; 8],
}

impl<'e> WaitEvent<'e> {
    /// Waits for `source`.
    pub fn new(source: &'e EventSource) -> WaitEvent<'e> {
        WaitEvent { source, unit: [0; 8] }
    }
}

impl Sealed for WaitEvent<'_> {}

impl Op for WaitEvent<'_> {
    gives!(());

    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        let (fd, len) = (Fd::new(self.source.receive.as_raw_fd()), sys::SEMAPHORE_UNIT as u32);
        RawOp::Read { fd, buf: self.unit.as_mut_ptr(), len, offset: CURRENT_POSITION, nowait: false, buffer: 0 }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        outcome.unit()
    }
}
