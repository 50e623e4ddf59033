//! The memory that a ring shares with the kernel.
//!
//! ```text
//! mapping at IORING_OFF_SQ_RING          mapping at IORING_OFF_SQES
//! ┌──────────────────────────────┐       ┌───────────────┐
//! │ sq head, tail, flags         │       │ entry 0, 64 B │
//! │ cq head, tail                │       │ entry 1       │
//! │ completions, 16 B each       │       │ …             │
//! │ (array of entry indices)     │       └───────────────┘
//! └──────────────────────────────┘
//! ```
//!
//! The program writes the submission tail and the completion head, the kernel the other two. The `io-uring` crate maps
//! the same, but keeps the addresses to itself; writing entries in place is worth having them.

use super::setup::Params;
use io_uring::squeue::Entry;
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

const OFF_SQ_RING: i64 = 0;
const OFF_SQES: i64 = 0x1000_0000;
const SETUP_NO_SQARRAY: u32 = 1 << 16;
const FLAG_CQ_OVERFLOW: u32 = 1 << 1;
const FLAG_TASKRUN: u32 = 1 << 2;

/// A completion as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// Both queues of a ring.
pub(super) struct Queues {
    pub(super) sq_head: *const AtomicU32,
    pub(super) sq_tail: *const AtomicU32,
    pub(super) sq_flags: *const AtomicU32,
    pub(super) sq_mask: u32,
    sq_entries: u32,
    pub(super) entries: *mut Entry,
    pub(super) cq_head: *const AtomicU32,
    pub(super) cq_tail: *const AtomicU32,
    cq_mask: u32,
    pub(super) cq_entries: u32,
    pub(super) completions: *const Completion,
    /// Entries written in all; the low bits are the submission tail, which the kernel sees from `publish` on.
    written: u64,
    /// How many there may be before the submission head has to be looked at again.
    limit: u64,
    /// Completions taken in all; the low bits are the completion head.
    taken: u64,
    _ring: Mapping,
    _entries: Mapping,
}

impl Queues {
    /// Maps the queues of the ring `fd`, which was set up with these parameters.
    pub(super) fn map(fd: &OwnedFd, params: &Params) -> io::Result<Queues> {
        let indices = params.sq_off.array as usize + params.sq_entries as usize * size_of::<u32>();
        let completions = params.cq_off.cqes as usize + params.cq_entries as usize * size_of::<Completion>();
        let ring = Mapping::new(fd, OFF_SQ_RING, indices.max(completions))?;
        let entries = Mapping::new(fd, OFF_SQES, params.sq_entries as usize * size_of::<Entry>())?;
        let at = |offset: u32| ring.start.wrapping_add(offset as usize);
        if params.flags & SETUP_NO_SQARRAY == 0 {
            for i in 0..params.sq_entries {
                // SAFETY: the kernel says that the array is there, and it is within the mapping. Entry i goes by index
                // i.
                unsafe { at(params.sq_off.array).cast::<u32>().add(i as usize).write(i) };
            }
        }
        Ok(Queues {
            sq_head: at(params.sq_off.head).cast(),
            sq_tail: at(params.sq_off.tail).cast(),
            sq_flags: at(params.sq_off.flags).cast(),
            sq_mask: params.sq_entries - 1,
            sq_entries: params.sq_entries,
            entries: entries.start.cast(),
            cq_head: at(params.cq_off.head).cast(),
            cq_tail: at(params.cq_off.tail).cast(),
            cq_mask: params.cq_entries - 1,
            cq_entries: params.cq_entries,
            completions: at(params.cq_off.cqes).cast_const().cast(),
            written: 0,
            limit: u64::from(params.sq_entries),
            taken: 0,
            _ring: ring,
            _entries: entries,
        })
    }

    /// How many completions fit.
    #[inline]
    pub(super) fn capacity(&self) -> u32 {
        self.cq_entries
    }

    /// Entries written in all.
    #[inline]
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Completions taken in all.
    #[inline]
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether so many entries can be written.
    #[inline]
    pub(super) fn has_room(&mut self, count: u32) -> bool {
        self.limit - self.written >= u64::from(count) || self.sq_entries - self.queued() >= count
    }

    /// How many entries are written that the kernel has not taken.
    #[inline]
    pub(super) fn queued(&mut self) -> u32 {
        // SAFETY: the index lies in the mapping, which `self` keeps; both sides access it atomically.
        let head = unsafe { (*self.sq_head).load(Ordering::Acquire) };
        let queued = (self.written as u32).wrapping_sub(head);
        self.limit = self.written + u64::from(self.sq_entries - queued);
        queued
    }

    /// The place of the next entry, which counts as written when `advance` is called.
    #[inline]
    pub(super) fn place(&self) -> *mut Entry {
        // Masked, so within the array.
        self.entries.wrapping_add((self.written as u32 & self.sq_mask) as usize)
    }

    /// Counts the entry at `place` as written.
    ///
    /// # Safety
    /// It is written, there was room for it, and what it points to lives until its last completion.
    #[inline]
    pub(super) unsafe fn advance(&mut self) {
        self.written += 1;
    }

    /// Lets the kernel see what is written.
    #[inline]
    pub(super) fn publish(&self) {
        // SAFETY: as in `queued`. Release: the entries are written before the tail.
        unsafe { (*self.sq_tail).store(self.written as u32, Ordering::Release) };
    }

    /// How many completions can be taken.
    #[inline]
    pub(super) fn available(&self) -> u32 {
        // SAFETY: as in `queued`. Acquire: completions are read after the tail that covers them.
        unsafe { (*self.cq_tail).load(Ordering::Acquire) }.wrapping_sub(self.taken as u32)
    }

    /// Where the next completions are.
    #[inline]
    pub(super) fn next(&self) -> Next {
        Next { completions: self.completions, mask: self.cq_mask, first: self.taken as u32 }
    }

    /// Takes so many completions. The kernel gets their places back with `publish_taken`.
    #[inline]
    pub(super) fn take(&mut self, count: u32) {
        self.taken += u64::from(count);
    }

    /// Gives the places of all completions taken back to the kernel.
    #[inline]
    pub(super) fn publish_taken(&self) {
        // SAFETY: as in `queued`. Release: the completions are read before the kernel may write there again.
        unsafe { (*self.cq_head).store(self.taken as u32, Ordering::Release) };
    }

    /// Whether an `enter` would bring completions that the kernel holds back: deferred work, or an overflow.
    #[inline]
    pub(super) fn has_deferred(&self) -> bool {
        // SAFETY: as in `queued`.
        unsafe { (*self.sq_flags).load(Ordering::Relaxed) & (FLAG_TASKRUN | FLAG_CQ_OVERFLOW) != 0 }
    }
}

/// Where the next completions are. A copy, so that it need not be looked up for each.
#[derive(Clone, Copy)]
pub(super) struct Next {
    completions: *const Completion,
    mask: u32,
    first: u32,
}

impl Next {
    /// The place of the completion after `skip` others. It is read field by field: a copy of the whole goes through the
    /// frame.
    #[inline]
    pub(super) fn place(self, skip: u32) -> *const Completion {
        self.completions.wrapping_add((self.first.wrapping_add(skip) & self.mask) as usize)
    }
}

/// A part of a ring's memory. A forked child does not get it.
struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, offset: i64, len: usize) -> io::Result<Mapping> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a fresh mapping of a descriptor of ours.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, fd.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Mapping { start: start.cast(), len };
        // SAFETY: the mapping just made.
        if unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and the queues' pointers into it go with it.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
