//! Reads past the page cache, which take their time, and memory for them.
#![allow(dead_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fs::File,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
};

pub const BLOCK: usize = 64 << 10;

const LAYOUT: Layout = match Layout::from_size_align(BLOCK, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!(),
};

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
const O_DIRECT: i32 = libc::O_DIRECT;
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
const O_DIRECT: i32 = 0;

/// Memory aligned as direct I/O demands.
pub struct Aligned(*mut u8);

impl Aligned {
    pub fn new() -> Aligned {
        // SAFETY: the layout has a size.
        Aligned(unsafe { alloc_zeroed(LAYOUT) })
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this length, zeroed, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0, BLOCK) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.0, LAYOUT) };
    }
}

/// A file of so many blocks, opened past the page cache where the filesystem can do that.
pub fn large_file(dir: &tempfile::TempDir, blocks: usize) -> File {
    let path = dir.path().join("large");
    let mut file = File::create(&path).unwrap();
    (0..blocks).for_each(|_| file.write_all(&[0xAA; BLOCK]).unwrap());
    file.sync_all().unwrap();
    let direct = File::options().read(true).custom_flags(O_DIRECT).open(&path);
    direct.unwrap_or_else(|_| File::open(&path).unwrap())
}
