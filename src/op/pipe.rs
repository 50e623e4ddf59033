//! Making pipes, and copying from one into another.

use super::open::owned;
use crate::{
    Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp, SpliceFlags, lowered},
    sealed::Sealed,
};
use std::os::fd::OwnedFd;

/// Makes a pipe: `pipe2(2)`. Both ends are closed on `exec`.
///
/// The output is the end to read from, and the end to write to.
///
/// ```
/// use aio::op::*;
///
/// let (output, input) = aio::single(Pipe::new())?;
/// let mut text = [0u8; 5];
/// aio::multi((Write::new(&input, "hello").link(), Read::new(&output, &mut text)))?;
/// assert_eq!(&text, b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_PIPE`, Linux 6.16; by an ordinary system call on older kernels.
#[derive(Debug, Default)]
pub struct Pipe {
    fds: [i32; 2],
}

impl Pipe {
    /// Makes one.
    pub const fn new() -> Pipe {
        Pipe { fds: [-1; 2] }
    }
}

impl Sealed for Pipe {}

impl Op for Pipe {
    gives!((OwnedFd, OwnedFd));

    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        RawOp::Pipe { fds: self.fds.as_mut_ptr(), flags: libc::O_CLOEXEC }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<(OwnedFd, OwnedFd)> {
        outcome.unit()?;
        let [output, input] = self.fds.map(|number| owned(number as u32));
        Ok((output, input))
    }
}

/// Copies bytes from one pipe into another and leaves them where they were: `tee(2)`. Linux only.
///
/// Waits until there is something in the first pipe, and room in the second. The output is the number of bytes; 0 is
/// the end of the input. What is read from the first pipe afterwards are the same bytes; take no more than were copied,
/// or the rest is missing in the second.
///
/// ```
/// use aio::op::*;
/// use std::io::{Read as _, Write as _};
///
/// let (mut from, mut input) = std::io::pipe()?;
/// let (mut copy, to) = std::io::pipe()?;
/// input.write_all(b"twice")?;
/// assert_eq!(aio::single(Tee::new(&from, &to, 100))?, 5);
/// let (mut a, mut b) = ([0u8; 5], [0u8; 5]);
/// from.read_exact(&mut a)?;
/// copy.read_exact(&mut b)?;
/// assert_eq!((&a, &b), (b"twice", b"twice"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_TEE`, Linux 5.8.
#[derive(Debug)]
pub struct Tee<D, E> {
    from: D,
    to: E,
    len: u32,
    flags: SpliceFlags,
}

impl<D: Descriptor, E: Descriptor> Tee<D, E> {
    /// Copies up to `len` bytes.
    pub fn new(from: D, to: E, len: u32) -> Tee<D, E> {
        Tee { from, to, len, flags: SpliceFlags::empty() }
    }

    /// Hints, of which [`NONBLOCK`](SpliceFlags::NONBLOCK) has an effect.
    pub fn flags(mut self, flags: SpliceFlags) -> Self {
        self.flags = flags;
        self
    }
}

impl<D, E> Sealed for Tee<D, E> {}

impl<D: Descriptor, E: Descriptor> Op for Tee<D, E> {
    gives!(usize);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let fds = (self.from.lower_fd(cx), self.to.lower_fd(cx));
        lowered(|| Ok(RawOp::Tee { from: fds.0?, to: fds.1?, len: self.len, flags: self.flags.bits() }))
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.from.finished(&outcome);
        self.to.finished(&outcome);
        outcome.result().map(|len| len as usize)
    }
}
