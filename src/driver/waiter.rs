//! Who waits for slots, and where those go whose wait is over.

use super::slot::Slot;
use std::{cell::Cell, ptr};

/// Whoever waits for a number of slots. It lives on the frame that waits, like the slots, or in a place of a queue.
pub(crate) struct Waiter {
    /// Slots that are not finished yet.
    pub(crate) pending: Cell<u32>,
    /// How many results it stands for in a sink.
    weight: u32,
    /// What happens when `pending` reaches zero.
    goes: Goes,
    next: Cell<*const Waiter>,
}

/// What happens to a waiter, or to its slots.
#[derive(Clone, Copy)]
enum Goes {
    /// Its owner looks at `pending` itself.
    Nowhere,
    /// The waiter goes on a list.
    Onto(*const Woken),
    /// The slot goes into a sink.
    Into(*const Sink, *mut Slot),
    /// It is no waiter of its own: each of its slots goes into the sink as soon as it is finished.
    Through(*const Sink),
}

impl Waiter {
    const fn new_for(pending: u32, weight: u32, goes: Goes) -> Waiter {
        Waiter { pending: Cell::new(pending), weight, goes, next: Cell::new(ptr::null()) }
    }

    /// For a thread that runs the engine itself until `pending` is zero.
    pub(crate) const fn new(pending: u32) -> Waiter {
        Waiter::new_for(pending, 0, Goes::Nowhere)
    }

    /// For one of several: it is put on `woken`, which must outlive the wait, when all its slots are finished.
    #[inline]
    pub(crate) const fn listed(pending: u32, woken: *const Woken) -> Waiter {
        Waiter::new_for(pending, 0, Goes::Onto(woken))
    }

    /// When `pending` slots are finished, `slot` goes into `sink`, which must outlive the wait. There it stands for
    /// `weight` results.
    pub(crate) const fn sunk(pending: u32, weight: u32, sink: *const Sink, slot: *mut Slot) -> Waiter {
        Waiter::new_for(pending, weight, Goes::Into(sink, slot))
    }

    /// For any number of slots: each goes into `sink`, which must outlive them, when it is finished.
    pub(crate) const fn through(sink: *const Sink) -> Waiter {
        Waiter::new_for(0, 1, Goes::Through(sink))
    }

    /// Where each slot goes, if it is no waiter of its own.
    #[inline]
    pub(crate) fn sink(&self) -> Option<&Sink> {
        match self.goes {
            // SAFETY: promised to `through`.
            Goes::Through(sink) => Some(unsafe { &*sink }),
            _ => None,
        }
    }

    /// So many of the slots expected will not come.
    pub(crate) fn forget(&self, missing: u32) {
        self.pending.set(self.pending.get() - missing);
    }
}

/// Waiters whose slots are all finished, in the order in which they were.
pub(crate) struct Woken {
    first: Cell<*const Waiter>,
    last: Cell<*const Waiter>,
    /// Told when the list gets its next entry, once.
    bell: Cell<*const Waiter>,
}

impl Woken {
    pub(crate) fn new() -> Woken {
        let nobody = || Cell::new(ptr::null());
        Woken { first: nobody(), last: nobody(), bell: nobody() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.get().is_null()
    }

    /// Has `bell`, which waits for one, told when the list gets its next entry; or no longer, if it is null.
    ///
    /// # Safety
    /// `bell` is valid until it was told, or this was called again.
    pub(crate) unsafe fn set_bell(&self, bell: *const Waiter) {
        self.bell.set(bell);
    }

    /// # Safety
    /// `waiter` is valid, stays so until it was taken off, and is on no list.
    #[inline]
    unsafe fn push(&self, waiter: *const Waiter) {
        let last = self.last.replace(waiter);
        // SAFETY: promised by the caller; what is on the list stays valid until it has been taken off.
        unsafe {
            (*waiter).next.set(ptr::null());
            if last.is_null() {
                self.first.set(waiter);
            } else {
                (*last).next.set(waiter);
            }
        }
        let bell = self.bell.get();
        if !bell.is_null() {
            self.bell.set(ptr::null());
            // SAFETY: promised to `set_bell`.
            unsafe { tell(bell, 1) };
        }
    }

    /// Takes a waiter off, if it is on the list.
    pub(crate) fn remove(&self, waiter: *const Waiter) {
        let (mut link, mut before) = (&self.first, ptr::null());
        while !link.get().is_null() {
            // SAFETY: what is on the list stays valid until it has been taken off.
            let at = unsafe { &*link.get() };
            if ptr::eq(at, waiter) {
                link.set(at.next.get());
                if at.next.get().is_null() {
                    self.last.set(before);
                }
                return;
            }
            (link, before) = (&at.next, at);
        }
    }

    /// Takes the first.
    #[inline]
    pub(crate) fn pop(&self) -> Option<*const Waiter> {
        let waiter = self.first.get();
        if waiter.is_null() {
            return None;
        }
        // SAFETY: a waiter on the list stays valid until it has been taken off: its owner waits for that.
        let next = unsafe { (*waiter).next.get() };
        self.first.set(next);
        if next.is_null() {
            self.last.set(ptr::null());
        }
        Some(waiter)
    }
}

/// Slots that are finished, in the order in which they were: what a queue takes its events from. Their number is bounded
/// by the queue's places, so it never grows.
pub(crate) struct Sink {
    ring: Box<[Cell<*mut Slot>]>,
    /// How many were put in and taken out, in all.
    pushed: Cell<u32>,
    popped: Cell<u32>,
    /// What they stand for beyond one result each; some stand for none.
    extra: Cell<i32>,
}

impl Sink {
    /// With room for so many slots at a time.
    pub(crate) fn new(room: u32) -> Sink {
        let ring = (0..room.next_power_of_two()).map(|_| Cell::new(ptr::null_mut())).collect();
        Sink { ring, pushed: Cell::new(0), popped: Cell::new(0), extra: Cell::new(0) }
    }

    /// How many results there are.
    #[inline]
    pub(crate) fn weight(&self) -> u32 {
        self.pushed.get().wrapping_sub(self.popped.get()).wrapping_add_signed(self.extra.get())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pushed.get() == self.popped.get()
    }

    #[inline]
    pub(crate) fn push(&self, slot: *mut Slot) {
        self.fill().push(slot);
    }

    /// Begins to put several in.
    #[inline]
    fn fill(&self) -> Filling<'_> {
        Filling { ring: &self.ring, at: self.pushed.get(), pushed: &self.pushed }
    }

    /// Takes the oldest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<*mut Slot> {
        let at = self.popped.get();
        if at == self.pushed.get() {
            return None;
        }
        self.popped.set(at.wrapping_add(1));
        Some(place_in(&self.ring, at).get())
    }

    /// A slot was taken out that stood for so many results, and not for one.
    pub(crate) fn took(&self, weight: u32) {
        self.extra.set(self.extra.get() - (weight as i32 - 1));
    }
}

/// The place of the `at`th slot in a sink's ring.
#[inline]
fn place_in(ring: &[Cell<*mut Slot>], at: u32) -> &Cell<*mut Slot> {
    debug_assert!(ring.len().is_power_of_two());
    // SAFETY: the length is a power of two (`Sink::new`), so what is left of the number is smaller.
    unsafe { ring.get_unchecked(at as usize & (ring.len() - 1)) }
}

/// Puts slots into a sink, which notices them when this is dropped. Until then all of it is in registers.
struct Filling<'a> {
    ring: &'a [Cell<*mut Slot>],
    at: u32,
    pushed: &'a Cell<u32>,
}

impl Filling<'_> {
    #[inline]
    fn push(&mut self, slot: *mut Slot) {
        place_in(self.ring, self.at).set(slot);
        self.at = self.at.wrapping_add(1);
    }
}

impl Drop for Filling<'_> {
    #[inline]
    fn drop(&mut self) {
        self.pushed.set(self.at);
    }
}

/// Tells of slots that are done one after the other. Those of one waiter tend to come in a row: it is told once for all
/// of them, unless it wants each. Nobody is told for sure before this is dropped.
#[cfg(target_os = "linux")]
pub(crate) struct Row<'a> {
    waiter: *const Waiter,
    count: u32,
    filling: Option<Filling<'a>>,
}

#[cfg(target_os = "linux")]
impl Row<'_> {
    #[inline]
    pub(crate) fn new() -> Self {
        Row { waiter: ptr::null(), count: 0, filling: None }
    }

    /// # Safety
    /// The slot is done and nobody was told; its waiter, and where that goes, stay until this is dropped.
    #[inline]
    pub(crate) unsafe fn push(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            let waiter = (*slot).waiter();
            if !ptr::eq(waiter, self.waiter) {
                *self = Row { waiter, count: 0, filling: None };
                self.filling = (*waiter).sink().map(Sink::fill);
            }
        }
        match &mut self.filling {
            Some(filling) => filling.push(slot),
            None => self.count += 1,
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Row<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.count > 0 {
            // SAFETY: promised to `push`.
            unsafe { tell(self.waiter, self.count) };
        }
    }
}

/// Tells a waiter that `count` of its slots are done: the last that is done for them.
///
/// # Safety
/// `waiter` is waiting for that many more.
#[inline]
pub(crate) unsafe fn tell(waiter: *const Waiter, count: u32) {
    // SAFETY: promised by the caller. The waiter's frame stays until `pending` is zero, and its list until it was
    // taken off that.
    unsafe {
        let pending = (*waiter).pending.get() - count;
        (*waiter).pending.set(pending);
        if pending > 0 {
            return;
        }
        match (*waiter).goes {
            Goes::Nowhere => {}
            Goes::Onto(woken) => (*woken).push(waiter),
            Goes::Into(sink, slot) => {
                (*sink).extra.set((*sink).extra.get() + (*waiter).weight as i32 - 1);
                (*sink).push(slot);
            }
            Goes::Through(_) => unreachable!("its slots are not counted"),
        }
    }
}
