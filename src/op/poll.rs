//! Readiness.

use crate::{
    Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp, lowered},
    sealed::Sealed,
};

bitflags::bitflags! {
    /// What a descriptor may be ready for; see `poll(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PollEvents: u16 {
        /// There is something to read, or the end.
        const IN = libc::POLLIN as u16;
        /// There is something urgent to read.
        const PRI = libc::POLLPRI as u16;
        /// A write would not wait.
        const OUT = libc::POLLOUT as u16;
        /// An error; reported without being asked for.
        const ERR = libc::POLLERR as u16;
        /// The other side is gone; reported without being asked for.
        const HUP = libc::POLLHUP as u16;
        /// The peer of a stream has shut down its sending side. Linux only.
        #[cfg(target_os = "linux")]
        const RDHUP = libc::POLLRDHUP as u16;
    }
}

impl PollEvents {
    /// What an engine is to wait for. A ring waits for `RDHUP` in any case, so every engine does.
    pub(super) fn interest(self) -> u16 {
        #[cfg(target_os = "linux")]
        return (self | PollEvents::RDHUP).bits();
        #[cfg(not(target_os = "linux"))]
        self.bits()
    }

    /// What an engine has answered, without a `RDHUP` that nobody asked for, unless that is all.
    pub(super) fn answer(self, mask: u32) -> PollEvents {
        let events = PollEvents::from_bits_truncate(mask as u16);
        #[cfg(target_os = "linux")]
        if (self | events.difference(PollEvents::RDHUP)).intersects(events) {
            return events & (self | PollEvents::RDHUP.complement());
        }
        events
    }
}

/// Waits until a descriptor is ready: `poll(2)`, once. The output tells what for.
///
/// A regular file is always ready. On Linux it ends too when the peer of a stream shuts down its sending side, as
/// io_uring has it; the output is `RDHUP` then, if there is nothing else to tell.
///
/// ```
/// use aio::op::{Poll, PollEvents};
/// use std::io::Write;
///
/// let (output, mut input) = std::io::pipe()?;
/// input.write_all(b"!")?;
/// assert_eq!(aio::single(Poll::new(&output, PollEvents::IN))?, PollEvents::IN);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_POLL_ADD`, Linux 5.1.
#[derive(Debug)]
pub struct Poll<D> {
    fd: D,
    events: PollEvents,
}

impl<D: Descriptor> Poll<D> {
    /// Waits for any of `events`, an error, or a hang-up.
    pub fn new(fd: D, events: PollEvents) -> Poll<D> {
        Poll { fd, events }
    }

    /// Gives up the operation for what it works on.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

impl<D> Sealed for Poll<D> {}

impl<D: Descriptor> Op for Poll<D> {
    gives!(PollEvents);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| Ok(RawOp::Poll { fd: self.fd.lower_fd(cx)?, events: self.events.interest() }))
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<PollEvents> {
        self.fd.finished(&outcome);
        outcome.result().map(|mask| self.events.answer(mask))
    }
}
