//! One io_uring: set-up with whatever flags the kernel knows, and `enter`.

#[cfg(feature = "faults")]
use super::between::Between;
use super::{
    mapping::{Next, Queues},
    setup::{self, Params},
};
use crate::{
    Errno,
    error::{Feature, Unavailable},
    sys::{Timespec, ret},
};
use io_uring::squeue::Entry;
use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;

/// Completions for each submission entry, so that a burst does not overflow.
const COMPLETIONS: u32 = 4;

/// Set-up features of newer kernels. A ring is made with as many of them as the kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// `NO_SQARRAY` (6.6).
    pub(crate) no_sqarray: bool,
    /// `SINGLE_ISSUER | DEFER_TASKRUN` (6.1).
    pub(crate) defer: bool,
    /// `COOP_TASKRUN` without `DEFER_TASKRUN`, and `TASKRUN_FLAG` with either (5.19).
    pub(crate) taskrun: bool,
    /// `SUBMIT_ALL` (5.18).
    pub(crate) submit_all: bool,
    /// The ring's descriptor registered with itself (5.18).
    pub(crate) registered: bool,
    /// Whether to use opcodes and flags beyond those of Linux 5.11.
    pub(crate) new_opcodes: bool,
}

impl Features {
    pub(crate) const ALL: Features = Features {
        no_sqarray: true,
        defer: true,
        taskrun: true,
        submit_all: true,
        registered: true,
        new_opcodes: true,
    };

    /// The next simpler set, newest features dropped first.
    fn simpler(self) -> Option<Features> {
        match self {
            Features { no_sqarray: true, .. } => Some(Features { no_sqarray: false, ..self }),
            Features { defer: true, .. } => Some(Features { defer: false, ..self }),
            Features { taskrun: true, .. } => Some(Features { taskrun: false, ..self }),
            Features { submit_all: true, .. } => Some(Features { submit_all: false, ..self }),
            _ => None,
        }
    }

    fn flags(self) -> u32 {
        let mut flags = setup::CQSIZE | setup::CLAMP;
        if self.submit_all {
            flags |= setup::SUBMIT_ALL;
        }
        if self.taskrun {
            flags |= setup::TASKRUN_FLAG;
        }
        if self.defer {
            flags |= setup::SINGLE_ISSUER | setup::DEFER_TASKRUN;
        } else if self.taskrun {
            flags |= setup::COOP_TASKRUN;
        }
        if self.no_sqarray {
            flags |= setup::NO_SQARRAY;
        }
        flags
    }
}

pub(crate) struct Ring {
    queues: Queues,
    fd: OwnedFd,
    gate: Gate,
    features: Features,
    kernel_features: u32,
    #[cfg(feature = "faults")]
    between: Option<Box<Between>>,
}

impl Ring {
    /// Makes a ring with `entries` submission entries (rounded up to a power of two) for the calling thread.
    pub(crate) fn new(entries: u32, mut features: Features) -> Result<Ring, Unavailable> {
        let completions = entries.next_power_of_two().saturating_mul(COMPLETIONS);
        let (fd, params) = loop {
            let mut params = Params::default();
            (params.flags, params.cq_entries) = (features.flags(), completions);
            match setup::setup(entries, &mut params) {
                // SAFETY: just made, and owned by nobody else.
                fd if fd >= 0 => break (unsafe { OwnedFd::from_raw_fd(fd) }, params),
                error if error == -libc::EINVAL => match features.simpler() {
                    Some(fewer) => features = fewer,
                    None => return Err(Unavailable::TooOld(Feature::SetupFlags)),
                },
                error => return Err(unavailable(-error)),
            }
        };
        for (feature, missing) in [
            (setup::FEATURE_SINGLE_MMAP, Feature::SingleMmap),
            (setup::FEATURE_NODROP, Feature::NoDrop),
            (setup::FEATURE_SUBMIT_STABLE, Feature::SubmitStable),
            (setup::FEATURE_RW_CUR_POS, Feature::CurrentPosition),
            (setup::FEATURE_EXT_ARG, Feature::TimedWait),
        ] {
            if params.features & feature == 0 {
                return Err(Unavailable::TooOld(missing));
            }
        }
        let queues = Queues::map(&fd, &params).map_err(|error| unavailable(error.raw_os_error().unwrap_or(0)))?;
        // The index spares the kernel the look-up of the descriptor in each `enter`. A thread has room for 16; without
        // it everything works the same.
        let index = if features.registered { setup::register_ring(fd.as_raw_fd()) } else { None };
        let gate = match index {
            Some(index) => Gate { fd: index as RawFd, flags: ENTER_GETEVENTS | ENTER_REGISTERED_RING },
            None => Gate { fd: fd.as_raw_fd(), flags: ENTER_GETEVENTS },
        };
        let kernel_features = params.features;
        Ok(Ring {
            queues,
            fd,
            gate,
            features,
            kernel_features,
            #[cfg(feature = "faults")]
            between: None,
        })
    }

    /// Whether opcodes and flags beyond those of Linux 5.11 may be used.
    pub(super) fn uses_new_opcodes(&self) -> bool {
        self.features.new_opcodes
    }

    /// Whether the kernel is older than that, by the set-up flags that it takes.
    pub(super) fn is_before_5_19(&self) -> bool {
        !self.features.taskrun
    }

    /// Whether work is deferred until the next `enter`.
    pub(super) fn defers(&self) -> bool {
        self.features.defer
    }

    /// A sign of Linux 5.17 or newer.
    pub(super) fn skips_completions(&self) -> bool {
        self.kernel_features & setup::FEATURE_CQE_SKIP != 0
    }

    /// A sign of Linux 6.10 or newer.
    pub(super) fn sends_bundles(&self) -> bool {
        self.kernel_features & setup::FEATURE_RECVSEND_BUNDLE != 0
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Another descriptor of the ring.
    pub(super) fn duplicate(&self) -> Option<OwnedFd> {
        self.fd.try_clone().ok()
    }

    /// Whether so many entries fit into the submission queue.
    #[inline]
    pub(super) fn has_room(&mut self, entries: u32) -> bool {
        self.queues.has_room(entries)
    }

    /// How many completions the ring holds.
    #[inline]
    pub(super) fn completions(&self) -> u32 {
        self.queues.capacity()
    }

    /// Whether `enter` has something to submit.
    #[inline]
    pub(super) fn has_queued(&mut self) -> bool {
        self.queues.queued() > 0
    }

    /// Whether there is a completion to take.
    #[inline]
    pub(super) fn has_completion(&self) -> bool {
        self.queues.available() > 0
    }

    /// Whether `enter` would bring completions without waiting.
    #[inline]
    pub(super) fn has_deferred(&self) -> bool {
        #[cfg(feature = "faults")]
        if self.between.as_ref().is_some_and(|between| between.has_deferred()) {
            return true;
        }
        self.queues.has_deferred()
    }

    /// As [`Queues::place`].
    #[inline]
    pub(super) fn place(&self) -> *mut Entry {
        self.queues.place()
    }

    /// As [`Queues::advance`].
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(super) unsafe fn advance(&mut self) {
        // SAFETY: promised by the caller.
        unsafe { self.queues.advance() };
    }

    /// Entries written, and completions taken, in all.
    #[inline]
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.queues.written(), self.queues.taken())
    }

    /// As [`Queues::available`].
    #[inline]
    pub(super) fn available(&self) -> u32 {
        self.queues.available()
    }

    /// As [`Queues::next`].
    #[inline]
    pub(super) fn next(&self) -> Next {
        self.queues.next()
    }

    /// As [`Queues::take`].
    #[inline]
    pub(super) fn take(&mut self, count: u32) {
        self.queues.take(count);
    }

    /// As [`Queues::publish_taken`].
    #[inline]
    pub(super) fn publish_taken(&self) {
        self.queues.publish_taken();
    }

    /// `io_uring_enter(2)`: submits all that is queued, runs deferred work, and waits for `want` completions for at
    /// most
    /// `limit` nanoseconds. The error is a bare number.
    #[inline]
    pub(super) fn enter(&mut self, want: u32, limit: Option<u64>) -> Result<(), i32> {
        self.queues.publish();
        #[cfg(feature = "faults")]
        if let Some(between) = &mut self.between {
            return between.enter(self.gate, want, limit);
        }
        self.gate.enter(self.queues.queued(), want, limit)
    }

    /// Puts other queues in the place of the kernel's, and gives those.
    #[cfg(feature = "faults")]
    pub(super) fn replace_queues(&mut self, queues: Queues) -> Queues {
        std::mem::replace(&mut self.queues, queues)
    }

    /// Puts something between these queues and the kernel's.
    #[cfg(feature = "faults")]
    pub(super) fn put_between(&mut self, between: Between) {
        self.between = Some(Box::new(between));
    }

    /// A chain of so many entries is about to be queued.
    #[cfg(feature = "faults")]
    pub(super) fn note_chain(&mut self, entries: u32) {
        let has_room = self.queues.has_room(entries);
        if let Some(between) = &self.between {
            between.note_chain(has_room);
        }
    }
}

/// What leads to the kernel's ring.
#[derive(Clone, Copy)]
pub(super) struct Gate {
    /// The descriptor, or the index under which it is registered with the calling thread.
    fd: RawFd,
    flags: u32,
}

impl Gate {
    /// Submits so many entries; otherwise as [`Ring::enter`].
    #[inline]
    pub(super) fn enter(self, submit: u32, want: u32, limit: Option<u64>) -> Result<(), i32> {
        match limit {
            None => self.call(submit, want, self.flags, ptr::null(), 0),
            Some(nanos) => {
                // `struct io_uring_getevents_arg`: a signal mask and its size, a minimal wait, and the time.
                let time = Timespec::from_nanos(nanos);
                let argument = [0, 0, &raw const time as u64];
                let size = size_of_val(&argument);
                self.call(submit, want, self.flags | ENTER_EXT_ARG, argument.as_ptr().cast(), size)
            }
        }
    }

    #[inline]
    fn call(self, submit: u32, want: u32, flags: u32, argument: *const u8, size: usize) -> Result<(), i32> {
        // SAFETY: the entries queued are valid (contract of `advance`); the argument is null, or lies on the caller's
        // frame.
        let result = ret(unsafe {
            libc::syscall(libc::SYS_io_uring_enter, self.fd, submit, want, flags, argument, size)
        } as i32);
        if result < 0 { Err(-result) } else { Ok(()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.gate.flags & ENTER_REGISTERED_RING != 0 {
            setup::unregister_ring(self.fd.as_raw_fd(), self.gate.fd as u32);
        }
    }
}

fn unavailable(errno: i32) -> Unavailable {
    match errno {
        libc::ENOSYS => Unavailable::NotImplemented,
        libc::ENOMEM => Unavailable::Memory,
        libc::EPERM | libc::EACCES => match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
            Ok(text) if text.trim() != "0" => Unavailable::Disabled(text.trim().parse().unwrap_or(2)),
            _ => Unavailable::Denied,
        },
        errno => Unavailable::Os(Errno::new(errno)),
    }
}
