//! Direct descriptors: files that live in a table of the ring instead of the process's.
//!
//! A chain that opens a file, reads it and closes it can name the file before it exists only by such a place. The table
//! has room for those of the program's own handles besides, behind the places of the chains; see
//! [`FileTable`](crate::driver::files::FileTable).

use super::{ring::Ring, setup};
use crate::driver::files::{BASE as PLACES, DEFAULT};

/// Added to an index, so that it is told apart from a descriptor's number.
const BASE: i32 = 1 << 30;

pub(super) enum DirectFiles {
    /// Nobody has asked yet.
    Unregistered,
    /// The kernel (before 5.19) has no such table.
    Missing,
    /// There is one.
    Table {
        /// The places that no chain has.
        free: Vec<u32>,
        /// How many there are for handles.
        handles: u32,
    },
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
            // Where descriptors are few (`RLIMIT_NOFILE`), so are places.
            let made = self.register(ring, DEFAULT).or_else(|_| self.register(ring, 0));
            if made.is_err() {
                *self = DirectFiles::Missing;
            }
        }
        match self {
            DirectFiles::Table { free, .. } => free.pop().map(|index| BASE + index as i32),
            _ => None,
        }
    }

    fn register(&mut self, ring: &Ring, handles: u32) -> Result<(), i32> {
        if !ring.uses_new_opcodes() {
            return Err(libc::EINVAL);
        }
        match setup::register_files(ring.fd(), PLACES + handles) {
            0.. => {
                *self = DirectFiles::Table { free: (0..PLACES).rev().collect(), handles };
                Ok(())
            }
            error => Err(-error),
        }
    }

    /// Sees to it that there are places for so many handles, of which there is none yet. `EBUSY` if chains that are in
    /// flight hold on to a table that is too small.
    pub(super) fn make_room(&mut self, ring: &Ring, wanted: u32) -> Result<(), i32> {
        match self {
            DirectFiles::Table { handles, .. } if *handles >= wanted => return Ok(()),
            DirectFiles::Table { free, .. } if free.len() < PLACES as usize => return Err(libc::EBUSY),
            DirectFiles::Table { .. } => {
                setup::unregister_files(ring.fd());
                *self = DirectFiles::Unregistered;
            }
            DirectFiles::Unregistered => {}
            DirectFiles::Missing => return Err(libc::EINVAL),
        }
        self.register(ring, wanted)
    }

    /// Gives a place back, emptied unless the chain closed it. `false` if `opened` names none.
    pub(super) fn release(&mut self, ring: &Ring, opened: i32, closed: bool) -> bool {
        let (Some(index), DirectFiles::Table { free, .. }) = (index(opened), self) else { return false };
        if !closed {
            setup::set_file(ring.fd(), index, -1);
        }
        debug_assert!(!free.contains(&index), "a place is given back once");
        free.push(index);
        true
    }
}
