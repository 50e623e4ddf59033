//! Engines: what services the queue.
//!
//! [`Driver`] is the seam. Above it there are typed operations, batches and those who wait; below it there are only
//! [slots](slot) with plain [operations](crate::op). Both engines are always compiled in, so one binary holds and tests
//! both.
//!
//! ```text
//! typed op ──lower──▶ RawOp in a Slot ──submit──▶ Driver ──turn──▶ result in the Slot ──raise──▶ typed result
//!                                                 │
//!                                                 ├─ uring  encode → entry → completion
//!                                                 └─ ready  attempt → park until ready, or hand to a worker
//! ```

pub(crate) mod buffers;
pub(crate) mod chain;
pub(crate) mod fault;
pub(crate) mod files;
pub(crate) mod multi;
pub(crate) mod perform;
pub(crate) mod pool;
pub(crate) mod ready;
pub(crate) mod shots;
pub(crate) mod slot;
#[cfg(target_os = "linux")]
pub(crate) mod uring;
pub(crate) mod waiter;
pub(crate) mod wheel;

use crate::{op::RawOp, stats::Stats, sys};
use buffers::BufferTable;
use files::FileTable;
use pool::Pool;
use slot::{Link, Slot};
use std::{os::fd::RawFd, rc::Rc};
use waiter::Waiter;

/// The engine of one thread.
pub(crate) enum Driver {
    #[cfg(target_os = "linux")]
    Uring(Box<uring::Uring>),
    Ready(Box<ready::Ready>),
}

impl Driver {
    /// Publishes a chain, whole, or an operation that is not linked. Some of it may be finished on return. If it is
    /// `alone`, the calling thread waits for nothing else, so that the emulation may wait in a system call.
    ///
    /// # Safety
    /// `head` is the first slot of a chain that ends with an unlinked one. The slots, what their operations point to,
    /// and their waiter stay valid and in place until the waiter has no pending slot left.
    #[inline]
    pub(crate) unsafe fn submit(&mut self, head: *mut Slot, alone: bool) {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                #[cfg(target_os = "linux")]
                Driver::Uring(uring) => uring.submit(head),
                Driver::Ready(ready) => ready.submit(head, alone),
            }
        }
    }

    /// [`submit`](Self::submit) for an operation that is [basic](RawOp::is_basic), stands alone and has no limit, into
    /// a slot that is not initialised yet. Where the kind of operation is known at compile time little is left of this.
    ///
    /// # Safety
    /// `slot` is memory for a slot that nobody uses; otherwise as `submit`.
    #[inline]
    pub(crate) unsafe fn submit_basic(&mut self, slot: *mut Slot, op: RawOp, waiter: *const Waiter, alone: bool) {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                #[cfg(target_os = "linux")]
                Driver::Uring(uring) => uring.submit_basic(slot, op, waiter),
                Driver::Ready(ready) => {
                    Slot::init(slot, op, Link::None, waiter);
                    ready.submit(slot, alone);
                }
            }
        }
    }

    /// Gives the kernel what is queued, waits until something is finished (`want` slots, if it can tell), and finishes
    /// what has completed. Returns early for no reason at all, so callers look at what they wait for and call again.
    #[inline]
    pub(crate) fn turn(&mut self, want: u32) {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.turn(want),
            Driver::Ready(ready) => {
                let _ = want;
                ready.turn();
            }
        }
    }

    /// As [`turn`](Self::turn), without waiting. Unless it is `thorough`, it makes no system call and looks at no clock
    /// without a sign that something is to be done.
    pub(crate) fn poll(&mut self, thorough: bool) {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.poll(thorough),
            Driver::Ready(ready) => ready.poll(thorough),
        }
    }

    /// The descriptor that is readable when `poll` has something to do, timers apart. The `poll(2)` emulation has none.
    pub(crate) fn pollable(&self) -> Option<RawFd> {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => Some(uring.pollable()),
            Driver::Ready(ready) => ready.pollable(),
        }
    }

    /// Whether whoever waits for that descriptor already is told in any case: a ring that defers its work keeps it to
    /// itself.
    pub(crate) fn is_pollable(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.is_pollable(),
            Driver::Ready(_) => self.pollable().is_some(),
        }
    }

    /// When the next timer fires, in monotonic nanoseconds. May be too early.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.next_timer(),
            Driver::Ready(ready) => ready.next_timer(),
        }
    }

    /// Asks for the end of a slot. It finishes in a later turn, with or without a result; a chain's operation whose
    /// turn has not come is not affected.
    ///
    /// # Safety
    /// `slot` was published, and its waiter is still waiting.
    pub(crate) unsafe fn cancel(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                #[cfg(target_os = "linux")]
                Driver::Uring(uring) => uring.cancel(slot),
                Driver::Ready(ready) => ready.cancel(slot),
            }
        }
    }

    /// Goes on with a multishot operation that pauses, if it does, since some of its results were taken.
    ///
    /// # Safety
    /// `slot` holds one that was published and has not ended.
    pub(crate) unsafe fn resume(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                #[cfg(target_os = "linux")]
                Driver::Uring(uring) => uring.resume(slot),
                Driver::Ready(ready) => ready.resume(slot),
            }
        }
    }

    /// Makes a pool of `count` buffers, a power of two, for the operations of the engine with that number. If it is
    /// `incremental`, several results may share a buffer. The error is a bare number.
    pub(crate) fn make_pool(&mut self, count: u32, size: u32, incremental: bool, engine: u64) -> Result<Rc<Pool>, i32> {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.make_pool(count, size, incremental, engine),
            Driver::Ready(_) => {
                let _ = incremental;
                Pool::new(count, size, None, engine, 0).map(Rc::new).ok_or(libc::ENOMEM)
            }
        }
    }

    /// A way for other threads to ring: the waiter of `slot` is told if it waits. `None` where there is none; then a
    /// descriptor must do.
    ///
    /// # Safety
    /// `slot` is initialised, and stays with its waiter as long as the driver runs.
    #[cfg(target_os = "linux")]
    pub(crate) unsafe fn door(&mut self, slot: *mut Slot) -> Option<uring::Door> {
        match self {
            // SAFETY: promised by the caller.
            Driver::Uring(uring) => unsafe { uring.door(slot) },
            Driver::Ready(_) => None,
        }
    }

    /// Makes the table of files for the handles of the engine with that number.
    pub(crate) fn make_files(&mut self, capacity: u32, engine: u64) -> Result<FileTable, i32> {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.make_files(capacity, engine),
            Driver::Ready(_) => Ok(FileTable::of_descriptors(engine, capacity)),
        }
    }

    /// Makes the table of memory.
    pub(crate) fn make_buffers(&mut self) -> BufferTable {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.make_buffers(),
            #[cfg(target_os = "linux")]
            Driver::Ready(_) => BufferTable::new(None),
            #[cfg(not(target_os = "linux"))]
            Driver::Ready(_) => BufferTable::none(),
        }
    }

    /// Gives back the descriptor that a chain opened for itself; it is closed unless `closed` says that it is.
    pub(crate) fn release_opened(&mut self, opened: i32, closed: bool) {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.release_opened(opened, closed),
            Driver::Ready(_) => chain::close_opened(opened, closed),
        }
    }

    /// Whether there is a way to do the operation. Only for those without an emulation on every system.
    pub(crate) fn supports(&self, op: &RawOp) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.supports(op),
            Driver::Ready(_) => match op {
                RawOp::Entry(_) => false,
                RawOp::FutexWait { .. } => sys::has_futex_waitv(),
                _ => true,
            },
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Uring(uring) => uring.stats(),
            Driver::Ready(ready) => ready.stats(),
        }
    }
}

/// Ends the process because an engine can no longer learn when the kernel is done with memory that it was given.
#[cold]
pub(crate) fn fatal(what: &str, errno: i32) -> ! {
    let error = crate::Errno::new(errno);
    crate::complete::complain(format_args!(
        "{what}: {error}; operations in flight can no longer be waited for, aborting"
    ));
    std::process::abort();
}
