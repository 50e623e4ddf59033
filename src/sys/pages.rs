//! Whole pages of memory, zeroed and not used until they are touched.
#![allow(unsafe_code)]

use std::ptr;

/// Memory of its own, given back when this is dropped.
pub(crate) struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// At least `len` bytes; `None` if the system has no room.
    pub(crate) fn new(len: usize) -> Option<Pages> {
        let len = len.max(1);
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: asks for new memory, wherever there is room.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
        (start != libc::MAP_FAILED).then_some(Pages { start: start.cast(), len })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody who knows the address uses it after this.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
