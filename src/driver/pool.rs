//! Buffers that operations take when their data has come, instead of bringing one along.
//!
//! On a ring the kernel takes them, out of a queue of free buffers that it shares with the program
//! (`IORING_REGISTER_PBUF_RING`); elsewhere the engine does. With incremental consumption several results share a
//! buffer, each with a part of its own.

// Queues of free buffers are there for the kernel of Linux only.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

use crate::sys;
use std::{
    cell::{Cell, RefCell},
    sync::atomic::{AtomicU16, Ordering},
};

/// The most buffers a pool can have: the kernel's own limit.
pub(crate) const MOST: u32 = 1 << 15;

/// A part of a buffer that has been filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) buffer: u16,
    pub(crate) start: u32,
}

/// What is known about one buffer.
#[derive(Default)]
struct State {
    /// Parts that are filled and not given back.
    parts: Cell<u32>,
    /// Where the next part begins.
    start: Cell<u32>,
    /// Nothing more will be filled into it.
    full: Cell<bool>,
    /// The one that the kernel takes after it.
    next: Cell<u16>,
}

/// Buffers of one size. It outlives its parts, and the operations that may fill them.
pub struct Pool {
    memory: sys::Pages,
    size: u32,
    states: Box<[State]>,
    free: Free,
    /// Buffers that hold something, as far as is known: the kernel may have filled more.
    used: Cell<u32>,
    /// The engine whose operations may use it, and the number that it goes by there.
    pub(crate) engine: u64,
    pub(crate) group: u16,
}

/// Buffers that nobody has.
enum Free {
    List(RefCell<Vec<u16>>),
    Ring(FreeRing),
}

/// The queue of free buffers that the kernel takes from.
pub(crate) struct FreeRing {
    entries: sys::Pages,
    mask: u16,
    tail: Cell<u16>,
    /// The buffer that was given last.
    last: Cell<u16>,
    /// One completion may tell of several buffers that were filled one after the other.
    pub(crate) bundles: bool,
}

/// `struct io_uring_buf`. The tail lies in the reserved field of the first.
#[repr(C)]
struct Entry {
    address: u64,
    len: u32,
    buffer: u16,
    tail: AtomicU16,
}

const _: () = assert!(size_of::<Entry>() == 16);

impl FreeRing {
    /// Memory for `count` buffers, which is a power of two.
    pub(crate) fn new(count: u32) -> Option<FreeRing> {
        let entries = sys::Pages::new(count as usize * size_of::<Entry>())?;
        let (tail, last) = (Cell::new(0), Cell::new(0));
        Some(FreeRing { entries, mask: (count - 1) as u16, tail, last, bundles: false })
    }

    pub(crate) fn address(&self) -> u64 {
        self.entries.start() as u64
    }

    /// Gives a buffer to the kernel.
    fn push(&self, address: *mut u8, len: u32, buffer: u16) {
        let tail = self.tail.get();
        let entry = self.entries.start().cast::<Entry>().wrapping_add(usize::from(tail & self.mask));
        // SAFETY: within the pages, which were allocated for so many. The kernel reads an entry from when the tail has
        // passed it until it has given the buffer out; there are as many entries as buffers, so this one is not in use.
        // It reads the tail atomically; nobody else writes it.
        unsafe {
            (&raw mut (*entry).address).write(address as u64);
            (&raw mut (*entry).len).write(len);
            (&raw mut (*entry).buffer).write(buffer);
            self.tail.set(tail.wrapping_add(1));
            (*self.entries.start().cast::<Entry>()).tail.store(tail.wrapping_add(1), Ordering::Release);
        }
    }
}

impl Pool {
    /// `count` buffers of `size` bytes, all free. Given a ring, its `count` is the same.
    pub(crate) fn new(count: u32, size: u32, ring: Option<FreeRing>, engine: u64, group: u16) -> Option<Pool> {
        let memory = sys::Pages::new((count as usize).checked_mul(size as usize)?)?;
        let free = match ring {
            Some(ring) => Free::Ring(ring),
            None => Free::List(RefCell::new(Vec::with_capacity(count as usize))),
        };
        let states = (0..count).map(|_| State::default()).collect();
        let pool = Pool { memory, size, states, free, used: Cell::new(0), engine, group };
        (0..count as u16).rev().for_each(|buffer| pool.put_back(buffer));
        Some(pool)
    }

    /// Whether the kernel takes the buffers.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.free, Free::Ring(_))
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn count(&self) -> u32 {
        self.states.len() as u32
    }

    /// How many buffers hold something that has not been given back.
    pub(crate) fn used(&self) -> u32 {
        self.used.get()
    }

    /// Where a part begins.
    #[inline]
    pub(crate) fn address(&self, part: Part) -> *mut u8 {
        self.memory.start().wrapping_add(usize::from(part.buffer) * self.size as usize + part.start as usize)
    }

    /// How many buffers are free, where the engine takes them.
    #[cfg(test)]
    fn free(&self) -> usize {
        match &self.free {
            Free::List(list) => list.borrow().len(),
            Free::Ring(_) => unreachable!("only the kernel knows"),
        }
    }

    /// Takes a free buffer, where the engine does that.
    pub(crate) fn take(&self) -> Option<u16> {
        match &self.free {
            Free::List(list) => list.borrow_mut().pop(),
            Free::Ring(_) => None,
        }
    }

    /// Whether the kernel may fill several buffers at a time.
    pub(crate) fn has_bundles(&self) -> bool {
        matches!(&self.free, Free::Ring(ring) if ring.bundles)
    }

    /// The buffer that the kernel was given after this one. To be asked when it has been filled, and not given back.
    pub(crate) fn next(&self, buffer: u16) -> u16 {
        self.states[usize::from(buffer)].next.get()
    }

    /// Puts a buffer back that was taken and not filled.
    pub(crate) fn untake(&self, buffer: u16) {
        self.put_back(buffer);
    }

    /// Takes note that `len` bytes were filled into a buffer, after those of earlier parts; it stays in use if `more`
    /// will be.
    pub(crate) fn filled(&self, buffer: u16, len: u32, more: bool) -> Part {
        let state = &self.states[usize::from(buffer)];
        let start = state.start.get();
        if state.parts.get() == 0 && start == 0 {
            self.used.set(self.used.get() + 1);
        }
        state.start.set(start + len);
        state.parts.set(state.parts.get() + 1);
        state.full.set(!more);
        Part { buffer, start }
    }

    /// Nobody uses a part any more. With the last one the buffer is free again.
    #[inline]
    pub(crate) fn release(&self, part: Part) {
        let state = &self.states[usize::from(part.buffer)];
        state.parts.set(state.parts.get() - 1);
        if state.parts.get() > 0 {
            return;
        }
        if state.full.get() || state.start.get() == 0 {
            self.used.set(self.used.get() - 1);
        }
        if state.full.get() {
            self.put_back(part.buffer);
        }
    }

    fn put_back(&self, buffer: u16) {
        let state = &self.states[usize::from(buffer)];
        state.start.set(0);
        state.full.set(false);
        match &self.free {
            Free::List(list) => list.borrow_mut().push(buffer),
            Free::Ring(ring) => {
                self.states[usize::from(ring.last.replace(buffer))].next.set(buffer);
                ring.push(self.address(Part { buffer, start: 0 }), self.size, buffer);
            }
        }
    }

    #[cfg(test)]
    fn ring(&self) -> Option<&FreeRing> {
        match &self.free {
            Free::Ring(ring) => Some(ring),
            Free::List(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_free_again_when_its_last_part_is_given_back() {
        let pool = Pool::new(2, 64, None, 0, 0).unwrap();
        assert_eq!((pool.count(), pool.size(), pool.is_shared(), pool.has_bundles()), (2, 64, false, false));
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!(pool.take(), None);
        let first = pool.filled(a, 10, true);
        let second = pool.filled(a, 20, true);
        assert_eq!((first.start, second.start, pool.used()), (0, 10, 1));
        assert_eq!(pool.address(second) as usize - pool.address(first) as usize, 10);
        pool.release(first);
        pool.release(second);
        assert_eq!(pool.free(), 0, "more may be filled into it");
        let third = pool.filled(a, 5, false);
        assert_eq!(third.start, 30);
        pool.release(third);
        assert_eq!((pool.free(), pool.used()), (1, 0));
        assert_eq!(pool.take(), Some(a));
        let starts = [0, 1].map(|buffer| pool.address(Part { buffer, start: 0 }) as usize);
        assert_eq!(starts[1] - starts[0], 64, "buffers do not overlap");
        let (first, last) = (pool.filled(a, 10, true), pool.filled(a, 20, false));
        pool.release(first);
        assert_eq!((pool.free(), pool.used()), (0, 1), "a part of it is still in use");
        pool.release(last);
        assert_eq!((pool.free(), pool.take()), (1, Some(a)));
        pool.untake(a);
        pool.untake(b);
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn the_kernel_sees_what_is_free() {
        let ring = FreeRing::new(4).unwrap();
        let address = ring.address();
        let pool = Pool::new(4, 32, Some(ring), 0, 0).unwrap();
        assert_eq!((pool.count(), pool.size(), pool.is_shared(), pool.has_bundles()), (4, 32, true, false));
        let entries = pool.ring().unwrap().entries.start().cast::<Entry>();
        // SAFETY: within the pages, and nobody else uses them.
        let seen =
            |at: usize| unsafe { ((*entries.add(at)).address, (*entries.add(at)).len, (*entries.add(at)).buffer) };
        // SAFETY: as above.
        let tail = || unsafe { (*entries).tail.load(Ordering::Relaxed) };
        assert_eq!((tail(), entries as u64), (4, address));
        let at = |buffer| pool.address(Part { buffer, start: 0 }) as u64;
        assert_eq!((seen(0), seen(3)), ((at(3), 32, 3), (at(0), 32, 0)));
        let part = pool.filled(3, 7, false);
        pool.release(part);
        assert_eq!((tail(), seen(0)), (5, (at(3), 32, 3)));
    }

    #[test]
    fn it_is_known_which_buffers_the_kernel_takes_one_after_the_other() {
        let ring = FreeRing::new(4).map(|ring| FreeRing { bundles: true, ..ring });
        let pool = Pool::new(4, 32, ring, 0, 0).unwrap();
        assert!(pool.has_bundles());
        assert_eq!([3, 2, 1].map(|buffer| pool.next(buffer)), [2, 1, 0]);
        let [_kept, second, third] = [3, 2, 1].map(|buffer| pool.filled(buffer, 1, false));
        pool.release(third);
        pool.release(second);
        assert_eq!([3, 0, 1].map(|buffer| pool.next(buffer)), [2, 1, 2], "one that is in use keeps its successor");
    }
}
