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
/// [`Queue::buf_pool`](crate::Queue::buf_pool). Each runtime of [tasks](crate::coro) has one of its own, which
/// [`coro::Config::pool`](crate::coro::Config::pool) describes.
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

    /// How many of its buffers hold something.
    pub(crate) fn used(&self) -> usize {
        self.0.used() as usize
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
        PooledBuf { of: Owner::Pool(self.clone(), part), start: 0, len }
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufPool({} buffers of {} bytes)", self.count(), self.buf_size())
    }
}

/// Bytes that an operation has put into a buffer of a [`BufPool`]. Dropping it gives the buffer back.
///
/// What a connection [receives](crate::net::TcpStream::recv_pooled) while the pool of its runtime is used up lies in a
/// buffer of its own instead, which is freed.
///
/// It can be written and sent like any other buffer. It stays on its thread:
///
/// ```compile_fail,E0277
/// fn check(bytes: aio::PooledBuf) {
///     std::thread::spawn(move || drop(bytes));
/// }
/// ```
pub struct PooledBuf {
    of: Owner,
    /// What is left of it.
    start: u32,
    len: u32,
}

/// Whose the memory is.
enum Owner {
    /// Nobody's: at the end of a stream, where there are no bytes.
    Nobody,
    Pool(BufPool, Part),
    /// There was no room in the pool.
    Alone(Vec<u8>),
}

impl PooledBuf {
    /// The end of a stream.
    pub(crate) fn empty() -> PooledBuf {
        PooledBuf { of: Owner::Nobody, start: 0, len: 0 }
    }

    /// Bytes that are in no pool.
    pub(crate) fn alone(bytes: Vec<u8>) -> Result<PooledBuf> {
        let len = buf::checked_len(bytes.len())?;
        Ok(PooledBuf { of: Owner::Alone(bytes), start: 0, len })
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
}

impl Deref for PooledBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let (start, len) = (self.start as usize, self.len as usize);
        match &self.of {
            Owner::Nobody => &[],
            Owner::Alone(bytes) => &bytes[start..start + len],
            // SAFETY: filled, as `taken_over` was promised; the pool's memory lives as long as this handle to it, and a
            // part belongs to one handle alone until that is dropped.
            Owner::Pool(pool, part) => unsafe { slice::from_raw_parts(pool.0.address(*part).add(start), len) },
        }
    }
}

impl DerefMut for PooledBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.start as usize, self.len as usize);
        match &mut self.of {
            Owner::Nobody => &mut [],
            Owner::Alone(bytes) => &mut bytes[start..start + len],
            // SAFETY: as above.
            Owner::Pool(pool, part) => unsafe { slice::from_raw_parts_mut(pool.0.address(*part).add(start), len) },
        }
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
        if let Owner::Pool(pool, part) = &self.of {
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
