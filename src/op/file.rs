//! Operations on open files: read, write, and what concerns their storage.
#![allow(unsafe_code)]

use crate::{
    Buf, BufMut, Descriptor, Result,
    lower::{Lower, Outcome},
    op::{CURRENT_POSITION, Op, RawOp, Settled, keeps_buffer, lowered},
    sealed::Sealed,
    sys,
};

/// Reads from a descriptor: `pread(2)` with [`at`](Read::at), `read(2)` without.
///
/// A file's read is short only at its end. A pipe, a terminal or a socket gives what it has, and is waited for if that
/// is nothing; `O_NONBLOCK` makes no difference. Zero bytes mean the end. Pipes, terminals and sockets ignore an
/// offset.
///
/// Terminals need no operation of their own: a `Read` gives a line when there is one.
///
/// ```
/// use aio::op::Read;
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// let mut name = [0u8; 8];
/// assert_eq!(aio::single(Read::new(&file, &mut name).at(1))?, 8);
/// assert_eq!(&name[..7], b"package");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The buffer of an operation that is not in flight can be got at:
///
/// ```
/// use aio::op::Read;
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// let mut read = Read::new(&file, vec![0u8; 64]).at(0);
/// read.buf_mut().truncate(32);
/// assert_eq!(read.buf().len(), 32);
/// let (_file, buffer) = read.into_parts();
/// assert_eq!(buffer, [0; 32]);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_READ`, Linux 5.6; `read(2)` lists the errors.
#[derive(Debug)]
pub struct Read<D, B> {
    fd: D,
    buf: B,
    offset: u64,
    nowait: bool,
}

impl<D: Descriptor, B: BufMut> Read<D, B> {
    /// Reads at the file's current position, and advances it.
    pub fn new(fd: D, buf: B) -> Read<D, B> {
        Read { fd, buf, offset: CURRENT_POSITION, nowait: false }
    }

    /// Reads at `offset` bytes from the start, and leaves the file's position alone.
    pub fn at(mut self, offset: u64) -> Read<D, B> {
        self.offset = offset;
        self
    }

    /// Gives `WouldBlock` instead of waiting (`RWF_NOWAIT`, `preadv2(2)`), also for a disk, and if the file's system
    /// cannot tell. What else cannot tell, a terminal for example, gives `EOPNOTSUPP`.
    pub fn nonblocking(mut self) -> Read<D, B> {
        self.nowait = true;
        self
    }

    keeps_buffer!(buf);
}

impl<D, B> Sealed for Read<D, B> {}

impl<D: Descriptor, B: BufMut> Op for Read<D, B> {
    type Output = B::Output;
    type Value = usize;

    #[inline]
    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let (buf, len) = self.buf.parts_mut()?;
            let buffer = self.buf.registered_as(cx.engine());
            Ok(RawOp::Read { fd, buf, len, offset: self.offset, nowait: self.nowait, buffer })
        })
    }

    #[inline]
    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        let len = outcome.result()? as usize;
        // SAFETY: the result of a read is how much of the buffer was written.
        unsafe { self.buf.filled(len) };
        Ok(len)
    }

    #[inline]
    fn output(self, len: Settled<usize>) -> B::Output {
        // SAFETY: what `settle` gave, which has told the buffer.
        unsafe { self.buf.into_output(len.0) }
    }
}

/// Writes to a descriptor: `pwrite(2)` with [`at`](Write::at), `write(2)` without.
///
/// May write less than all of it to a pipe or a socket; see [`Send`](crate::op::Send) with `WAITALL` for all or an
/// error.
///
/// Writing to a socket whose peer is gone gives `BrokenPipe`, never `SIGPIPE`. Writing to a *pipe* that nobody reads
/// gives
/// `BrokenPipe` too, and raises `SIGPIPE` unless the process ignores that, as Rust programs do from their start.
///
/// ```
/// use aio::op::Write;
///
/// let file = tempfile::tempfile()?;
/// assert_eq!(aio::single(Write::new(&file, "hello").at(0))?, 5);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_WRITE`, Linux 5.6; `write(2)` lists the errors.
#[derive(Debug)]
pub struct Write<D, B> {
    fd: D,
    buf: B,
    offset: u64,
    nowait: bool,
}

impl<D: Descriptor, B: Buf> Write<D, B> {
    /// Writes at the file's current position, and advances it.
    pub fn new(fd: D, buf: B) -> Write<D, B> {
        Write { fd, buf, offset: CURRENT_POSITION, nowait: false }
    }

    /// Writes at `offset` bytes from the start, and leaves the file's position alone.
    pub fn at(mut self, offset: u64) -> Write<D, B> {
        self.offset = offset;
        self
    }

    /// Gives `WouldBlock` instead of waiting (`RWF_NOWAIT`, `pwritev2(2)`), also if a file's system cannot tell, as
    /// ext4 unless the file was opened with `O_DIRECT`. What else cannot tell gives `EOPNOTSUPP`.
    pub fn nonblocking(mut self) -> Write<D, B> {
        self.nowait = true;
        self
    }

    keeps_buffer!(buf);
}

impl<D, B> Sealed for Write<D, B> {}

impl<D: Descriptor, B: Buf> Op for Write<D, B> {
    type Output = B::Output;
    type Value = usize;

    #[inline]
    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let (buf, len) = self.buf.parts()?;
            if cx.sigpipe_is_live() && fd.socket_type().is_ok() {
                // Only a send can be told not to raise the signal. It takes all, or what there is room for.
                let how = if self.nowait { libc::MSG_DONTWAIT } else { libc::MSG_WAITALL };
                return Ok(RawOp::Send { fd, buf, len, flags: how | sys::MSG_NOSIGNAL });
            }
            let buffer = self.buf.registered_as(cx.engine());
            Ok(RawOp::Write { fd, buf, len, offset: self.offset, nowait: self.nowait, buffer })
        })
    }

    #[inline]
    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        Ok(outcome.result()? as usize)
    }

    #[inline]
    fn output(self, len: Settled<usize>) -> B::Output {
        self.buf.into_output(len.0)
    }
}

/// Makes what was written to a file durable: `fsync(2)`, or `fdatasync(2)` with [`data_only`](Fsync::data_only).
///
/// ```
/// use aio::op::*;
///
/// let file = tempfile::tempfile()?;
/// aio::multi((Write::new(&file, "durable").at(0).link(), Fsync::new(&file).data_only()))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_FSYNC`, Linux 5.1.
#[derive(Debug)]
pub struct Fsync<D> {
    fd: D,
    data_only: bool,
}

impl<D: Descriptor> Fsync<D> {
    /// Waits until data and metadata are on the disk.
    pub fn new(fd: D) -> Fsync<D> {
        Fsync { fd, data_only: false }
    }

    /// Leaves out metadata that reading the data does not need, such as times.
    pub fn data_only(mut self) -> Fsync<D> {
        self.data_only = true;
        self
    }
}

/// Sets a file's length: `ftruncate(2)`.
///
/// ```
/// let file = tempfile::tempfile()?;
/// aio::single(aio::op::Ftruncate::new(&file, 4096))?;
/// assert_eq!(file.metadata()?.len(), 4096);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_FTRUNCATE`, Linux 6.9; by an ordinary system call on older kernels.
#[derive(Debug)]
pub struct Ftruncate<D> {
    fd: D,
    len: u64,
}

impl<D: Descriptor> Ftruncate<D> {
    /// `len` is in bytes; what is added reads as zeros.
    pub fn new(fd: D, len: u64) -> Ftruncate<D> {
        Ftruncate { fd, len }
    }
}

bitflags::bitflags! {
    /// What [`Fallocate`] does with the range. Linux only, as `fallocate(2)` describes; not every file system knows
    /// all.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FallocateFlags: i32 {
        /// Does not change the file's length.
        const KEEP_SIZE = 0x01;
        /// Makes a hole; only together with `KEEP_SIZE`.
        const PUNCH_HOLE = 0x02;
        /// Removes the range, and moves what follows forward.
        const COLLAPSE_RANGE = 0x08;
        /// Fills the range with zeros.
        const ZERO_RANGE = 0x10;
        /// Inserts a hole, and moves what follows back.
        const INSERT_RANGE = 0x20;
        /// Gives shared blocks of the range copies of their own.
        const UNSHARE_RANGE = 0x40;
    }
}

/// Allocates or frees storage of a file: `fallocate(2)`.
///
/// ```
/// let file = tempfile::tempfile()?;
/// aio::single(aio::op::Fallocate::new(&file, 0, 8192))?;
/// assert_eq!(file.metadata()?.len(), 8192);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_FALLOCATE`, Linux 5.6.
#[derive(Debug)]
pub struct Fallocate<D> {
    fd: D,
    offset: u64,
    len: u64,
    flags: FallocateFlags,
}

impl<D: Descriptor> Fallocate<D> {
    /// Allocates `len` bytes from `offset` on, and extends the file to hold them.
    pub fn new(fd: D, offset: u64, len: u64) -> Fallocate<D> {
        Fallocate { fd, offset, len, flags: FallocateFlags::empty() }
    }

    /// Does something else with the range.
    pub fn flags(mut self, flags: FallocateFlags) -> Fallocate<D> {
        self.flags = flags;
        self
    }
}

/// How a file is going to be used, for [`Fadvise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// Nothing special.
    Normal,
    /// In no order: no read-ahead.
    Random,
    /// From front to back: more read-ahead.
    Sequential,
    /// Soon: read it into memory.
    WillNeed,
    /// No more: drop it from memory.
    DontNeed,
    /// Once.
    NoReuse,
}

/// Tells the kernel how a file is going to be used: `posix_fadvise(2)`.
///
/// ```
/// use aio::op::{Advice, Fadvise};
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// aio::single(Fadvise::new(&file, Advice::Sequential))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_FADVISE`, Linux 5.6.
#[derive(Debug)]
pub struct Fadvise<D> {
    fd: D,
    offset: u64,
    len: u32,
    advice: Advice,
}

impl<D: Descriptor> Fadvise<D> {
    /// For the whole file.
    pub fn new(fd: D, advice: Advice) -> Fadvise<D> {
        Fadvise { fd, offset: 0, len: 0, advice }
    }

    /// For `len` bytes from `offset` on; a length of 0 means to the end.
    pub fn range(mut self, offset: u64, len: u32) -> Fadvise<D> {
        (self.offset, self.len) = (offset, len);
        self
    }
}

/// Operations on one descriptor that give nothing but success.
macro_rules! unit {
    ($name:ident, $this:ident, $fd:ident => $raw:expr) => {
        impl<D> Sealed for $name<D> {}

        impl<D: Descriptor> Op for $name<D> {
            gives!(());

            fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
                let $this = self;
                lowered(|| {
                    let $fd = $this.fd.lower_fd(cx)?;
                    Ok($raw)
                })
            }

            fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
                self.fd.finished(&outcome);
                outcome.unit()
            }
        }
    };
}

unit!(Fsync, this, fd => RawOp::Fsync { fd, data_only: this.data_only });
unit!(Ftruncate, this, fd => RawOp::Truncate { fd, len: this.len });
unit!(Fallocate, this, fd => RawOp::Allocate { fd, mode: this.flags.bits(), offset: this.offset, len: this.len });
unit!(Fadvise, this, fd => RawOp::Advise {
    fd,
    offset: this.offset,
    len: this.len,
    advice: match this.advice {
        Advice::Normal => 0,
        Advice::Random => 1,
        Advice::Sequential => 2,
        Advice::WillNeed => 3,
        Advice::DontNeed => 4,
        Advice::NoReuse => 5,
    },
});
