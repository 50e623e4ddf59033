//! Address space for stacks.

use super::exposed;
use std::{
    io, ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A range of address space of its own.
pub(super) struct Mapping {
    start: usize,
    len: usize,
}

impl Mapping {
    /// Reserves `len` bytes, a multiple of the page size. Memory comes when they are touched.
    pub(super) fn new(len: usize) -> io::Result<Mapping> {
        #[cfg(target_os = "linux")]
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        #[cfg(not(target_os = "linux"))]
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: a fresh mapping, which overlaps nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(error.kind(), format!("no address space for {len} bytes of stacks: {error}")));
        }
        // A huge page would make each stack resident as a whole.
        #[cfg(target_os = "linux")]
        // SAFETY: within the mapping; advice only.
        unsafe {
            libc::madvise(start, len, libc::MADV_NOHUGEPAGE);
        }
        Ok(Mapping { start: start.expose_provenance(), len })
    }

    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Leaves the mapping to the caller, who unmaps it.
    pub(super) fn keep(self) -> usize {
        std::mem::ManuallyDrop::new(self).start
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`. Whoever used stacks in it is done: a pool is dropped after its last task.
        unsafe { unmap(self.start, self.len) };
    }
}

/// # Safety
/// The range is a mapping that nobody uses any more.
pub(super) unsafe fn unmap(start: usize, len: usize) {
    // SAFETY: promised by the caller.
    unsafe { libc::munmap(exposed(start).cast(), len) };
}

/// Makes a range fault when it is touched.
pub(super) fn guard(start: usize, len: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if guard_by_mark(start, len) {
        return Ok(());
    }
    // SAFETY: the range was mapped for this purpose, and nothing lies in it.
    if unsafe { libc::mprotect(exposed(start).cast(), len, libc::PROT_NONE) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let why = "no guard for another stack; raise vm.max_map_count, or use Linux 6.13 or newer";
    Err(io::Error::new(error.kind(), format!("{why}: {error}")))
}

/// Marks a range in the page table, which takes no mapping of its own; tells whether that works. Emulators of Linux take
/// any advice for a hint, and say that it was taken; so the first time it is tried out.
#[cfg(target_os = "linux")]
fn guard_by_mark(start: usize, len: usize) -> bool {
    use std::sync::atomic::AtomicU8;
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    const WORKS: u8 = 1;
    const WORKS_NOT: u8 = 2;
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    let known = KNOWN.load(Ordering::Relaxed);
    if known == WORKS_NOT {
        return false;
    }
    let range = exposed(start);
    // SAFETY: the range was mapped for this purpose, and nothing lies in it; the path is looked at by the kernel, which
    // answers `EFAULT` if it cannot.
    let works = unsafe {
        libc::madvise(range.cast(), len, MADV_GUARD_INSTALL) == 0
            && (known == WORKS || crate::sys::ret(libc::access(range.cast(), libc::F_OK)) == -libc::EFAULT)
    };
    // Locked memory refuses it, then and now.
    KNOWN.store(if works { WORKS } else { WORKS_NOT }, Ordering::Relaxed);
    works
}

/// Gives the memory of a range back to the system; it reads as zeros when touched again.
pub(super) fn discard(start: usize, len: usize) {
    // SAFETY: part of a stack that nobody uses.
    unsafe { libc::madvise(exposed(start).cast(), len, libc::MADV_DONTNEED) };
}

/// How many bytes of a stack have memory, from its lowest touched page up.
#[cfg(target_os = "linux")]
pub(super) fn resident(low: usize, high: usize) -> usize {
    let page = page_size();
    let mut at = low;
    let mut pages = [0u8; 512];
    while at < high {
        let count = ((high - at) / page).min(pages.len());
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        if unsafe { libc::mincore(exposed(at).cast(), count * page, pages.as_mut_ptr()) } != 0 {
            return 0;
        }
        if let Some(first) = pages[..count].iter().position(|state| state & 1 != 0) {
            return high - (at + first * page);
        }
        at += count * page;
    }
    0
}

#[cfg(not(target_os = "linux"))]
pub(super) fn resident(_low: usize, _high: usize) -> usize {
    0
}

pub(super) fn page_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: asks for a number.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}
