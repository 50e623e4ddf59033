//! Where the emulation's system calls can be made to go wrong, with the feature `faults`. Without it nothing is left of
//! this.

#[cfg(not(feature = "faults"))]
pub(crate) use absent::*;
#[cfg(feature = "faults")]
pub(crate) use present::*;

#[cfg(not(feature = "faults"))]
mod absent {
    use crate::op::RawOp;
    use std::os::fd::RawFd;

    /// The faults of an engine: none.
    pub(crate) struct Faults;

    impl Faults {
        pub(crate) const NONE: Faults = Faults;

        #[inline(always)]
        pub(crate) fn split(&mut self) -> Faults {
            Faults
        }

        #[inline(always)]
        pub(crate) fn within<R>(&mut self, calls: impl FnOnce() -> R) -> R {
            calls()
        }

        #[inline(always)]
        pub(crate) fn shorten(&mut self, op: RawOp) -> RawOp {
            op
        }

        #[inline(always)]
        pub(crate) fn interrupt_wait(&mut self) -> bool {
            false
        }

        #[inline(always)]
        pub(crate) fn disturb(&mut self, _: &mut Vec<(RawFd, u16)>, _: impl FnOnce() -> Vec<RawFd>) {}

        #[inline(always)]
        pub(crate) fn delay(&mut self) {}
    }

    #[inline(always)]
    pub(crate) fn interrupts() -> bool {
        false
    }

    #[inline(always)]
    pub(crate) fn takes_descriptors() -> bool {
        false
    }

    #[inline(always)]
    pub(crate) fn takes_buffers() -> bool {
        false
    }
}

#[cfg(feature = "faults")]
mod present {
    use crate::{
        faults::{Fault, Plan, Stream},
        op::{Fd, RawOp},
        sys,
    };
    use std::{cell::RefCell, os::fd::RawFd, time::Duration};

    thread_local! {
        /// The faults of the engine, or of the worker's job, whose system calls are being made.
        static CURRENT: RefCell<Option<Stream>> = const { RefCell::new(None) };
    }

    /// The faults of an engine, if it has any.
    pub(crate) struct Faults(Option<Stream>);

    impl Faults {
        pub(crate) const NONE: Faults = Faults(None);

        pub(crate) fn new(plan: Plan) -> Faults {
            Faults(Some(plan.stream()))
        }

        /// For something that goes its own way, such as a job.
        pub(crate) fn split(&mut self) -> Faults {
            Faults(self.0.as_mut().map(Stream::split))
        }

        /// The system calls made meanwhile may go wrong.
        pub(crate) fn within<R>(&mut self, calls: impl FnOnce() -> R) -> R {
            let before = CURRENT.replace(self.0.take());
            let result = calls();
            self.0 = CURRENT.replace(before);
            result
        }

        fn strikes(&mut self, fault: Fault) -> bool {
            self.0.as_mut().is_some_and(|stream| stream.strikes(fault))
        }

        /// The operation as it is to be performed; for one that nothing is linked to.
        pub(crate) fn shorten(&mut self, mut op: RawOp) -> RawOp {
            let Some(stream) = &mut self.0 else { return op };
            let (fd, len) = match &mut op {
                RawOp::Read { fd, len, .. } | RawOp::Write { fd, len, .. } => (*fd, len),
                RawOp::Recv { fd, len, flags, .. } | RawOp::Send { fd, len, flags, .. }
                    if *flags & libc::MSG_WAITALL == 0 =>
                {
                    (*fd, len)
                }
                _ => return op,
            };
            if *len > 1 && may_be_short(fd) && stream.strikes(Fault::Short) {
                *len = 1 + stream.below(*len - 1);
            }
            op
        }

        /// A signal comes before anything is ready.
        pub(crate) fn interrupt_wait(&mut self) -> bool {
            self.strikes(Fault::InterruptedWait)
        }

        /// Adds reports of descriptors that something waits for and that may not be ready, and mixes them.
        pub(crate) fn disturb(&mut self, events: &mut Vec<(RawFd, u16)>, waiting: impl FnOnce() -> Vec<RawFd>) {
            let Some(stream) = &mut self.0 else { return };
            let waiting = waiting();
            if !waiting.is_empty() && stream.strikes(Fault::Spurious) {
                events.push((stream.pick(&waiting), 0));
            }
            if events.len() > 1 && stream.strikes(Fault::Reorder) {
                stream.shuffle(events);
            }
        }

        /// A worker takes its time.
        pub(crate) fn delay(&mut self) {
            if self.strikes(Fault::SlowWorker) {
                let micros = self.0.as_mut().map_or(0, |stream| stream.below(2_000));
                std::thread::sleep(Duration::from_micros(micros.into()));
            }
        }
    }

    fn now(fault: Fault) -> bool {
        CURRENT.with_borrow_mut(|stream| stream.as_mut().is_some_and(|stream| stream.strikes(fault)))
    }

    /// Whether a signal interrupts the system call that is about to be made.
    pub(crate) fn interrupts() -> bool {
        now(Fault::InterruptedCall)
    }

    /// Whether there is no descriptor for it.
    pub(crate) fn takes_descriptors() -> bool {
        now(Fault::NoDescriptors)
    }

    /// Whether the pool has no free buffer for it.
    pub(crate) fn takes_buffers() -> bool {
        now(Fault::NoBuffers)
    }

    /// Whether less may be transferred than was asked for without anything being lost: of files, pipes and streams.
    fn may_be_short(fd: Fd) -> bool {
        match sys::file_type(fd.number()) {
            Ok(libc::S_IFREG | libc::S_IFIFO) => true,
            Ok(libc::S_IFSOCK) => fd.socket_type() == Ok(libc::SOCK_STREAM),
            _ => false,
        }
    }
}
