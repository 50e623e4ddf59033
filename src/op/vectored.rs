//! Reading and writing several buffers at once.

use crate::{
    Descriptor, Error, Result,
    buf::checked_len,
    lower::{Lower, Outcome},
    op::{CURRENT_POSITION, Op, RawOp, lowered},
    sealed::Sealed,
};
use std::io::{IoSlice, IoSliceMut};

/// The most buffers that one operation takes (`IOV_MAX`).
const MAX_PARTS: usize = 1024;

/// The number of parts as an engine takes it.
pub(super) fn checked_parts(parts: usize, bytes: usize) -> Result<u32> {
    if parts > MAX_PARTS {
        return Err(Error::Invalid(&"an operation takes at most 1024 buffers; use several operations"));
    }
    checked_len(bytes)?;
    Ok(parts as u32)
}

/// Reads into several buffers, one after the other: `preadv(2)` with [`at`](Readv::at), `readv(2)` without.
///
/// As [`Read`](super::Read) in everything else. The output is the number of bytes in all.
///
/// ```
/// use std::io::IoSliceMut;
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// let (mut a, mut b) = ([0u8; 1], [0u8; 7]);
/// let mut parts = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
/// assert_eq!(aio::single(aio::op::Readv::new(&file, &mut parts).at(0))?, 8);
/// assert_eq!((&a, &b), (b"[", b"package"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_READV`, Linux 5.1.
#[derive(Debug)]
pub struct Readv<'b, 's, D> {
    fd: D,
    parts: &'b mut [IoSliceMut<'s>],
    offset: u64,
    nowait: bool,
}

impl<'b, 's, D: Descriptor> Readv<'b, 's, D> {
    /// Reads at the file's current position, and advances it.
    pub fn new(fd: D, parts: &'b mut [IoSliceMut<'s>]) -> Readv<'b, 's, D> {
        Readv { fd, parts, offset: CURRENT_POSITION, nowait: false }
    }

    /// Reads at `offset` bytes from the start, and leaves the file's position alone.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Gives `WouldBlock` instead of waiting; see [`Read::nonblocking`](super::Read::nonblocking).
    pub fn nonblocking(mut self) -> Self {
        self.nowait = true;
        self
    }
}

impl<D> Sealed for Readv<'_, '_, D> {}

impl<D: Descriptor> Op for Readv<'_, '_, D> {
    gives!(usize);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let count = checked_parts(self.parts.len(), self.parts.iter().map(|part| part.len()).sum())?;
            // `IoSliceMut` is guaranteed to have the layout of `iovec`.
            let iov = self.parts.as_mut_ptr().cast();
            Ok(RawOp::Readv { fd, iov, count, offset: self.offset, nowait: self.nowait })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        outcome.result().map(|len| len as usize)
    }
}

/// Writes from several buffers, one after the other: `pwritev(2)` with [`at`](Writev::at), `writev(2)` without.
///
/// As [`Write`](super::Write) in everything else. The output is the number of bytes in all.
///
/// ```
/// use std::io::IoSlice;
///
/// let file = tempfile::tempfile()?;
/// let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
/// assert_eq!(aio::single(aio::op::Writev::new(&file, &parts).at(0))?, 8);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_WRITEV`, Linux 5.1.
#[derive(Debug)]
pub struct Writev<'b, 's, D> {
    fd: D,
    parts: &'b [IoSlice<'s>],
    offset: u64,
    nowait: bool,
}

impl<'b, 's, D: Descriptor> Writev<'b, 's, D> {
    /// Writes at the file's current position, and advances it.
    pub fn new(fd: D, parts: &'b [IoSlice<'s>]) -> Writev<'b, 's, D> {
        Writev { fd, parts, offset: CURRENT_POSITION, nowait: false }
    }

    /// Writes at `offset` bytes from the start, and leaves the file's position alone.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Gives `WouldBlock` instead of waiting; see [`Write::nonblocking`](super::Write::nonblocking).
    pub fn nonblocking(mut self) -> Self {
        self.nowait = true;
        self
    }
}

impl<D> Sealed for Writev<'_, '_, D> {}

impl<D: Descriptor> Op for Writev<'_, '_, D> {
    gives!(usize);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let count = checked_parts(self.parts.len(), self.parts.iter().map(|part| part.len()).sum())?;
            // `IoSlice` is guaranteed to have the layout of `iovec`.
            let iov = self.parts.as_ptr().cast();
            Ok(RawOp::Writev { fd, iov, count, offset: self.offset, nowait: self.nowait })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        outcome.result().map(|len| len as usize)
    }
}
