//! Memory that a ring knows in advance, so that it does not look its pages up for each read and write.

use crate::sys::Pages;
#[cfg(target_os = "linux")]
use crate::sys::fork::Life;
use std::{cell::OnceCell, rc::Rc};
#[cfg(target_os = "linux")]
use std::{
    cell::{Cell, RefCell},
    os::fd::RawFd,
};

/// The most memory that the kernel takes as one buffer.
pub(crate) const MOST: usize = 1 << 30;
/// How many pieces of memory a ring's table has room for.
#[cfg(target_os = "linux")]
pub(crate) const PLACES: u16 = 1024;

/// Why memory could not be had.
pub(crate) enum Failure {
    Allocation,
    /// The table has no place left.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Full,
    /// The kernel says so, with this error.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Refused(i32),
}

/// The table of one ring. Memory may outlive the ring.
pub(crate) struct BufferTable {
    #[cfg(target_os = "linux")]
    ring: Cell<Option<RawFd>>,
    #[cfg(target_os = "linux")]
    life: Life,
    /// Places that nobody has, in a ring that has any.
    #[cfg(target_os = "linux")]
    free: RefCell<Vec<u16>>,
}

#[cfg(target_os = "linux")]
impl BufferTable {
    /// Of a ring with so many places, or of none.
    pub(crate) fn new(ring: Option<RawFd>) -> BufferTable {
        let free = RefCell::new(if ring.is_some() { (0..PLACES).rev().collect() } else { Vec::new() });
        BufferTable { ring: Cell::new(ring), life: Life::current(), free }
    }

    fn ring(&self) -> Option<RawFd> {
        self.ring.get().filter(|_| self.life.goes_on())
    }

    /// The place that the memory gets, if there is a ring.
    fn add(&self, pages: &Pages, len: usize) -> Result<Option<u16>, Failure> {
        let Some(ring) = self.ring() else { return Ok(None) };
        let place = self.free.borrow_mut().pop().ok_or(Failure::Full)?;
        // SAFETY: the memory stays until `remove`, or until the ring is closed, which drains it first.
        match unsafe { super::uring::set_buffer(ring, u32::from(place), pages.start(), len) } {
            0.. => Ok(Some(place)),
            error => {
                self.free.borrow_mut().push(place);
                Err(Failure::Refused(-error))
            }
        }
    }

    fn remove(&self, place: u16) {
        if let Some(ring) = self.ring() {
            // SAFETY: no memory at all.
            unsafe { super::uring::set_buffer(ring, u32::from(place), std::ptr::null_mut(), 0) };
            self.free.borrow_mut().push(place);
        }
    }

    fn close(&self) {
        let ring = self.ring();
        self.ring.set(None);
        if let Some(ring) = ring
            && self.free.borrow().len() < usize::from(PLACES)
        {
            super::uring::forget_buffers(ring);
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl BufferTable {
    pub(crate) fn none() -> BufferTable {
        BufferTable {}
    }

    fn add(&self, _pages: &Pages, _len: usize) -> Result<Option<u16>, Failure> {
        Ok(None)
    }

    fn remove(&self, _place: u16) {}

    fn close(&self) {}
}

/// Closes a table when its engine goes, before the ring is closed.
#[derive(Default)]
pub(crate) struct ClosesBuffers(pub(crate) OnceCell<Rc<BufferTable>>);

impl Drop for ClosesBuffers {
    fn drop(&mut self) {
        if let Some(table) = self.0.get() {
            table.close();
        }
    }
}

/// Memory in such a table, or outside of any.
pub(crate) struct Registered {
    pages: Pages,
    table: Rc<BufferTable>,
    place: Option<u16>,
    engine: u64,
}

impl Registered {
    /// `len` zeroed bytes, at most [`MOST`].
    pub(crate) fn new(table: &Rc<BufferTable>, len: usize, engine: u64) -> Result<Registered, Failure> {
        let pages = Pages::new(len).ok_or(Failure::Allocation)?;
        let place = table.add(&pages, len)?;
        Ok(Registered { pages, table: table.clone(), place, engine })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.pages.start()
    }

    /// Its number for operations of an engine, counted from 1; 0 if that does not know it.
    #[inline]
    pub(crate) fn number(&self, engine: u64) -> u16 {
        self.place.filter(|_| self.engine == engine).map_or(0, |place| place + 1)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // The pages are unmapped after this. No operation uses them: each has a handle that keeps this.
        if let Some(place) = self.place {
            self.table.remove(place);
        }
    }
}
