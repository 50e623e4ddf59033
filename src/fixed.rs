//! What a queue's engine knows in advance: files in its table, and memory for buffers.
#![allow(unsafe_code)]

use crate::{
    Buf, BufMut, Result, buf,
    driver::{buffers::Registered, files::Kept},
    lower::Lower,
    op::Fd,
};
use std::{
    cell::RefCell,
    fmt,
    ops::{Deref, DerefMut},
    rc::Rc,
    slice,
};

/// A file in the table of a [`Queue`](crate::Queue): a "direct" or "fixed" descriptor, which the kernel finds without
/// the process's table, and which takes none of that.
///
/// Operations of the queue take it in place of a descriptor, by value (a clone of the handle is cheap, and stays on its
/// thread) or by reference. The file is closed when the last handle is dropped; an operation in flight has one, so that
/// nothing is closed under it. What closing may say about earlier writes is lost; [`Fsync`](crate::op::Fsync) tells it.
///
/// It comes from [`Queue::register_file`](crate::Queue::register_file), or from an operation that opens
/// [`Direct`](crate::op::Direct)ly into the table. [`Install`](crate::op::Install) leads back to a descriptor.
///
/// ```
/// use aio::{Queue, op::*};
///
/// let queue = Queue::new(2)?;
/// let file = queue.register_file(tempfile::tempfile()?)?;
/// queue.submit_chain(
///     (Write::new(file.clone(), "hello").at(0).link(), Fsync::new(file)),
///     (|done| done.result.is_ok(), |done| done.result.is_ok()),
/// )?;
/// assert!(queue.wait(2)?.all(|(_, ok)| ok));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Limits
///
/// - Another queue, and [`complete`](crate::complete) and its relatives, refuse it:
///   [`Error::Invalid`](crate::Error::Invalid).
/// - It is no directory to start from, nor can [`Statx`](crate::op::Statx) look at it, nor
///   [`GetSockOpt`](crate::op::GetSockOpt) at options other than the socket level's:
///   [`Error::Unsupported`](crate::Error::Unsupported), on every engine; so it is for [`Tee`](crate::op::Tee). A direct
///   [`Socket`](crate::op::Socket) can be bound, listened on, connected and shut down.
/// - When the queue goes, the files of its table are closed, whatever handles are left.
///
/// The table is that of `IORING_REGISTER_FILES2`, used from Linux 6.11 on, where all operations work on it. Elsewhere
/// the handle has an ordinary descriptor behind it, and behaves the same.
///
/// It stays on its thread:
///
/// ```compile_fail,E0277
/// fn check(file: aio::FixedFile) {
///     std::thread::spawn(move || drop(file));
/// }
/// ```
#[derive(Clone)]
pub struct FixedFile(Rc<Kept>);

impl FixedFile {
    pub(crate) fn new(kept: Kept) -> FixedFile {
        FixedFile(Rc::new(kept))
    }

    pub(crate) fn lower(&self, cx: &mut Lower<'_>) -> Result<Fd> {
        cx.note_fixed();
        self.0.lower(cx.engine())
    }

    /// What operations of an engine call it.
    pub(crate) fn name(&self, engine: u64) -> Result<Fd> {
        self.0.lower(engine)
    }
}

impl fmt::Debug for FixedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedFile({:?})", self.0)
    }
}

/// Buffers of one size in memory that the kernel has looked up and locked in advance; made by
/// [`Queue::fixed_bufs`](crate::Queue::fixed_bufs).
///
/// [`Read`](crate::op::Read) and [`Write`](crate::op::Write) of that queue with a [`FixedBuf`] spare the kernel that
/// look-up. Anything else takes a `FixedBuf` as an ordinary
/// buffer, and so do emulations.
///
/// A clone is another handle to the same buffers. It stays on its thread. The memory lives as long as any handle or
/// buffer, even if the queue is gone.
///
/// ```
/// use aio::{Queue, op::Read};
///
/// let queue = Queue::new(4)?;
/// let bufs = queue.fixed_bufs(4, 4096)?;
/// let file = queue.register_file(std::fs::File::open("Cargo.toml")?)?;
/// let buf = bufs.take().expect("there are four");
/// queue.submit(Read::new(file, buf).at(0), |done| (done.result, done.op.into_buf()))?;
/// for (_, (len, buf)) in queue.wait(1)? {
///     assert!(buf[..len?].starts_with(b"[package]"));
/// }
/// assert_eq!(bufs.free(), 4);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_REGISTER_BUFFERS2`, and `IORING_OP_READ_FIXED` and `IORING_OP_WRITE_FIXED`; Linux 5.19.
#[derive(Clone)]
pub struct FixedBufs(Rc<Bufs>);

struct Bufs {
    memory: Registered,
    /// How long each is.
    size: u32,
    count: u32,
    /// Those that nobody has.
    free: RefCell<Vec<u32>>,
}

impl FixedBufs {
    /// The memory is large enough for `count` of `size` bytes.
    pub(crate) fn new(memory: Registered, count: u32, size: u32) -> FixedBufs {
        FixedBufs(Rc::new(Bufs { memory, size, count, free: RefCell::new((0..count).rev().collect()) }))
    }

    /// Takes a free buffer, if there is one. It is zeroed, or holds what its last user left in it.
    pub fn take(&self) -> Option<FixedBuf> {
        let number = self.0.free.borrow_mut().pop()?;
        Some(FixedBuf { bufs: self.0.clone(), number, start: 0, len: self.0.size })
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.0.free.borrow().len()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.count as usize
    }

    /// The size of each in bytes.
    pub fn buf_size(&self) -> usize {
        self.0.size as usize
    }
}

impl fmt::Debug for FixedBufs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedBufs({} of {} buffers of {} bytes are free)", self.free(), self.count(), self.buf_size())
    }
}

/// One of the [`FixedBufs`]; dropping it gives it back.
///
/// It is the bytes of the buffer, or of the part that [`truncate`](FixedBuf::truncate) and
/// [`advance`](FixedBuf::advance) have left of it; an operation fills or takes all of that.
///
/// It stays on its thread:
///
/// ```compile_fail,E0277
/// fn check(bytes: aio::FixedBuf) {
///     std::thread::spawn(move || drop(bytes));
/// }
/// ```
pub struct FixedBuf {
    bufs: Rc<Bufs>,
    number: u32,
    start: u32,
    len: u32,
}

impl FixedBuf {
    /// Keeps the first `len` bytes only; does nothing if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// Leaves out the first `count` bytes, as after a write that was short.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "cannot leave out {count} of {} bytes", self.len());
        self.start += count as u32;
        self.len -= count as u32;
    }

    /// All of the buffer again.
    pub fn reset(&mut self) {
        (self.start, self.len) = (0, self.bufs.size);
    }

    fn first(&self) -> *mut u8 {
        let at = self.number as usize * self.bufs.size as usize + self.start as usize;
        self.bufs.memory.start().wrapping_add(at)
    }
}

impl Deref for FixedBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: within the memory, which was zeroed when it was made and lives as long as this handle to it. A buffer
        // belongs to one handle alone until that is dropped, and an operation in flight owns or borrows its handle.
        unsafe { slice::from_raw_parts(self.first(), self.len as usize) }
    }
}

impl DerefMut for FixedBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.first(), self.len as usize) }
    }
}

impl AsRef<[u8]> for FixedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for FixedBuf {
    #[inline]
    fn drop(&mut self) {
        self.bufs.free.borrow_mut().push(self.number);
    }
}

impl fmt::Debug for FixedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedBuf(number {}, {} bytes)", self.number, self.len)
    }
}

impl buf::seal::Sealed for FixedBuf {}

impl Buf for FixedBuf {
    type Output = (usize, FixedBuf);

    #[inline]
    fn parts(&self) -> Result<(*const u8, u32)> {
        Ok((self.first(), self.len))
    }

    #[inline]
    fn registered_as(&self, engine: u64) -> u16 {
        self.bufs.memory.number(engine)
    }

    fn into_output(self, len: usize) -> (usize, FixedBuf) {
        (len, self)
    }
}

impl BufMut for FixedBuf {
    type Output = (usize, FixedBuf);

    #[inline]
    fn parts_mut(&mut self) -> Result<(*mut u8, u32)> {
        Ok((self.first(), buf::not_empty(self.len())?))
    }

    #[inline]
    fn registered_as(&self, engine: u64) -> u16 {
        self.bufs.memory.number(engine)
    }

    unsafe fn into_output(self, len: usize) -> (usize, FixedBuf) {
        (len, self)
    }
}
