//! Pools of buffers for operations that take one only when their data has come.
#![allow(unsafe_code)]

use crate::{
    Buf, Error, Result, buf,
    driver::pool::{Part, Pool},
};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    rc::Rc,
    slice,
};

/// Buffers of one size that the operations of a [`Queue`](crate::Queue) share: made by
/// [`Queue::buf_pool`](crate::Queue::buf_pool).
///
/// An operation such as [`RecvMulti`](crate::op::RecvMulti) takes one when something has arrived, so that a connection
/// on which nothing happens holds none. If there is none, it ends with `ENOBUFS`, and can be submitted again when some
/// [`PooledBuf`] was dropped.
///
/// A clone is another handle to the same pool. It stays on its thread, and its memory lives as long as anything of it
/// is in use, even if the queue is gone.
///
/// On a ring the kernel takes the buffers by itself (`IORING_REGISTER_PBUF_RING`; used from Linux 6.7 on, where all
/// multishot operations exist). Elsewhere the engine does.
#[derive(Clone)]
pub struct BufPool(Rc<Pool>);

impl BufPool {
    pub(crate) fn new(pool: Rc<Pool>) -> BufPool {
        BufPool(pool)
    }

    /// How many buffers it has.
    pub fn count(&self) -> usize {
        self.0.count() as usize
    }

    /// The size of each in bytes.
    pub fn buf_size(&self) -> usize {
        self.0.size() as usize
    }

    /// For an operation of the engine with this number.
    pub(crate) fn lower(&self, engine: u64) -> Result<*const Pool> {
        if self.0.engine == engine {
            return Ok(Rc::as_ptr(&self.0));
        }
        Err(Error::Invalid(&"the pool of buffers belongs to another queue; make one with this queue's buf_pool"))
    }

    /// Takes over what an operation has filled.
    ///
    /// # Safety
    /// The part is of this pool, `len` bytes of it were filled, and nobody else takes it over.
    pub(crate) unsafe fn taken_over(&self, part: Part, len: u32) -> PooledBuf {
        PooledBuf { of: Some((self.clone(), part)), start: 0, len }
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufPool({} buffers of {} bytes)", self.count(), self.buf_size())
    }
}

/// Bytes that an operation has put into a buffer of a [`BufPool`]. Dropping it gives the buffer back.
///
/// It can be written and sent like any other buffer. It stays on its thread:
///
/// ```compile_fail,E0277
/// fn check(bytes: aio::PooledBuf) {
///     std::thread::spawn(move || drop(bytes));
/// }
/// ```
pub struct PooledBuf {
    /// Nothing at the end of a stream, where there are no bytes.
    of: Option<(BufPool, Part)>,
    /// What is left of it.
    start: u32,
    len: u32,
}

impl PooledBuf {
    /// The end of a stream.
    pub(crate) fn empty() -> PooledBuf {
        PooledBuf { of: None, start: 0, len: 0 }
    }

    /// Leaves out the first `count` bytes, as after a send that was short.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "cannot leave out {count} of {} bytes", self.len());
        self.start += count as u32;
        self.len -= count as u32;
    }

    /// Keeps the first `len` bytes only; does nothing if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    fn start(&self) -> *mut u8 {
        match &self.of {
            Some((pool, part)) => pool.0.address(*part).wrapping_add(self.start as usize),
            None => std::ptr::NonNull::dangling().as_ptr(),
        }
    }
}

impl Deref for PooledBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: filled, as `taken_over` was promised; the pool's memory lives as long as this handle to it, and a
        // part belongs to one handle alone until that is dropped.
        unsafe { slice::from_raw_parts(self.start(), self.len as usize) }
    }
}

impl DerefMut for PooledBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.start(), self.len as usize) }
    }
}

impl AsRef<[u8]> for PooledBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for PooledBuf {
    #[inline]
    fn drop(&mut self) {
        if let Some((pool, part)) = &self.of {
            pool.0.release(*part);
        }
    }
}

impl fmt::Debug for PooledBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledBuf").field(&&**self).finish()
    }
}

impl buf::seal::Sealed for PooledBuf {}

impl Buf for PooledBuf {
    type Output = (usize, PooledBuf);

    fn parts(&self) -> Result<(*const u8, u32)> {
        Ok((self.as_ptr(), buf::checked_len(self.len())?))
    }

    fn into_output(self, len: usize) -> (usize, PooledBuf) {
        (len, self)
    }
}
