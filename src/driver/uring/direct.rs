//! Direct descriptors: files that live in a table of the ring instead of the process's.
//!
//! A chain that opens a file, reads it and closes it can name the file before it exists only by such a place.

use super::{ring::Ring, setup};

/// Added to an index, so that it is told apart from a descriptor's number.
const BASE: i32 = 1 << 30;
const PLACES: u32 = 256;

pub(super) enum DirectFiles {
    /// Nobody has asked yet.
    Unregistered,
    /// The kernel (before 5.19) has no such table.
    Missing,
    /// The places that are free.
    Free(Vec<u32>),
}

/// The index, if `opened` names a direct descriptor.
pub(super) fn index(opened: i32) -> Option<u32> {
    (opened >= BASE).then(|| (opened - BASE) as u32)
}

impl DirectFiles {
    pub(super) fn new() -> DirectFiles {
        DirectFiles::Unregistered
    }

    /// A free place, or `None` if all are taken or the kernel has no table.
    pub(super) fn take(&mut self, ring: &Ring) -> Option<i32> {
        if matches!(self, DirectFiles::Unregistered) {
            *self = match ring.uses_new_opcodes() && setup::register_files(ring.fd(), PLACES) {
                true => DirectFiles::Free((0..PLACES).rev().collect()),
                false => DirectFiles::Missing,
            };
        }
        match self {
            DirectFiles::Free(free) => free.pop().map(|index| BASE + index as i32),
            _ => None,
        }
    }

    /// Gives a place back, emptied unless the chain closed it. `false` if `opened` names none.
    pub(super) fn release(&mut self, ring: &Ring, opened: i32, closed: bool) -> bool {
        let (Some(index), DirectFiles::Free(free)) = (index(opened), self) else { return false };
        if !closed {
            setup::clear_file(ring.fd(), index);
        }
        debug_assert!(!free.contains(&index), "a place is given back once");
        free.push(index);
        true
    }
}
