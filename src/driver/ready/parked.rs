//! Which operations wait for which descriptor.

use crate::driver::slot::Slot;
use std::{os::fd::RawFd, ptr};

/// Waiting slots by descriptor number, in the order in which they came; the lists run through the slots.
pub(super) struct Parked {
    lists: Vec<List>,
    count: usize,
    last_added: *mut Slot,
}

#[derive(Clone, Copy)]
struct List {
    head: *mut Slot,
    tail: *mut Slot,
}

const EMPTY: List = List { head: ptr::null_mut(), tail: ptr::null_mut() };

impl Default for Parked {
    fn default() -> Parked {
        Parked { lists: Vec::new(), count: 0, last_added: ptr::null_mut() }
    }
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The slot that was added last; not to be followed, for it may be finished since.
    pub(super) fn last_added(&self) -> *mut Slot {
        self.last_added
    }

    /// Adds a slot to a descriptor's list; gives the events that all on the list wait for.
    ///
    /// # Safety
    /// `slot` is published, not finished, and on no list.
    pub(super) unsafe fn add(&mut self, fd: RawFd, slot: *mut Slot, events: u16) -> u16 {
        let index = fd.max(0) as usize;
        if self.lists.len() <= index {
            self.lists.resize(index + 1, EMPTY);
        }
        let list = &mut self.lists[index];
        // SAFETY: promised by the caller; what is on a list is published and not finished.
        unsafe {
            (*slot).emulated().list.set([list.tail, ptr::null_mut()]);
            if list.tail.is_null() {
                list.head = slot;
            } else {
                let [before, _] = (*list.tail).emulated().list.get();
                (*list.tail).emulated().list.set([before, slot]);
            }
        }
        list.tail = slot;
        self.count += 1;
        self.last_added = slot;
        let (mut interest, mut other) = (events, self.lists[index].head);
        while !other.is_null() {
            // SAFETY: as above.
            unsafe {
                interest |= (*other).op.readiness().map_or(0, |(_, events)| events);
                other = (*other).emulated().list.get()[1];
            }
        }
        interest
    }

    /// Takes a slot off a descriptor's list; tells whether that is empty now.
    ///
    /// # Safety
    /// `slot` is on the list.
    pub(super) unsafe fn remove(&mut self, fd: RawFd, slot: *mut Slot) -> bool {
        let list = &mut self.lists[fd.max(0) as usize];
        // SAFETY: promised by the caller; what is on a list is published and not finished.
        unsafe {
            let [before, after] = (*slot).emulated().list.get();
            if before.is_null() {
                list.head = after;
            } else {
                let [other, _] = (*before).emulated().list.get();
                (*before).emulated().list.set([other, after]);
            }
            if after.is_null() {
                list.tail = before;
            } else {
                let [_, other] = (*after).emulated().list.get();
                (*after).emulated().list.set([before, other]);
            }
        }
        self.count -= 1;
        if self.last_added == slot {
            self.last_added = ptr::null_mut();
        }
        list.head.is_null()
    }

    /// The slots that wait for a descriptor.
    pub(super) fn waiting(&self, fd: RawFd) -> Vec<*mut Slot> {
        let mut slots = Vec::new();
        self.collect(fd, &mut slots);
        slots
    }

    fn collect(&self, fd: RawFd, slots: &mut Vec<*mut Slot>) {
        let mut slot = self.lists.get(fd.max(0) as usize).map_or(ptr::null_mut(), |list| list.head);
        while !slot.is_null() {
            slots.push(slot);
            // SAFETY: what is on a list is published and not finished.
            slot = unsafe { (*slot).emulated().list.get() }[1];
        }
    }

    /// Takes all slots off a descriptor's list, into an empty one.
    pub(super) fn take(&mut self, fd: RawFd, slots: &mut Vec<*mut Slot>) {
        self.collect(fd, slots);
        if let Some(list) = self.lists.get_mut(fd.max(0) as usize) {
            *list = EMPTY;
        }
        self.count -= slots.len();
        self.last_added = ptr::null_mut();
    }

    /// The descriptors that something waits for.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        (0..self.lists.len()).filter(|&fd| !self.lists[fd].head.is_null()).map(|fd| fd as RawFd).collect()
    }
}
