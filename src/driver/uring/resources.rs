//! A ring's tables of files and of memory, for handles of the program.

use super::{Uring, setup};
use crate::driver::{
    buffers::{BufferTable, PLACES},
    files::FileTable,
};

// The handles know the ring by its descriptor alone, for they may outlive it.
pub(crate) use setup::{
    set_file, set_memory as set_buffer, unregister_files as forget_files, unregister_memory as forget_buffers,
};

impl Uring {
    /// As [`Driver::make_files`](crate::driver::Driver::make_files). A ring that cannot do everything with files of its
    /// table has none.
    pub(crate) fn make_files(&mut self, capacity: u32, engine: u64) -> Result<FileTable, i32> {
        let made = if self.support.files() { self.direct.make_room(&self.ring, capacity) } else { Err(libc::EINVAL) };
        match made {
            Ok(()) => Ok(FileTable::of_ring(engine, capacity, self.ring.fd())),
            Err(libc::EBUSY) => Err(libc::EBUSY),
            Err(_) => Ok(FileTable::of_descriptors(engine, capacity)),
        }
    }

    /// As [`Driver::make_buffers`](crate::driver::Driver::make_buffers).
    pub(crate) fn make_buffers(&mut self) -> BufferTable {
        let has_table = self.ring.uses_new_opcodes() && setup::register_memory(self.ring.fd(), u32::from(PLACES)) == 0;
        BufferTable::new(has_table.then(|| self.ring.fd()))
    }
}
