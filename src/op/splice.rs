//! Moving bytes between descriptors without copying them through the program.

use crate::{
    Descriptor, Result,
    lower::{Lower, Outcome},
    op::{CURRENT_POSITION, Op, RawOp, lowered},
    sealed::Sealed,
};

bitflags::bitflags! {
    /// Hints for [`Splice`]; see `splice(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SpliceFlags: u32 {
        /// Moves pages if possible.
        const MOVE = 1;
        /// Gives `WouldBlock` instead of waiting for a pipe.
        const NONBLOCK = 2;
        /// More will follow; for sockets.
        const MORE = 4;
    }
}

/// Moves bytes between two descriptors, one of which is a pipe: `splice(2)`. Linux only.
///
/// The output is the number of bytes moved; 0 is the end of the input.
///
/// While one that takes from a pipe waits for its other end, a full socket for example, the kernel keeps the pipe
/// locked (seen on Linux 6.18): a `Write` to that pipe then holds the whole thread up in the kernel. So
/// [poll](super::Poll) the other end first, or write to the pipe from another thread.
///
/// ```
/// use aio::op::Splice;
/// use std::io::Read;
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// let (mut output, input) = std::io::pipe()?;
/// let moved = aio::single(Splice::new(&file, &input, 9).from_offset(0))?;
/// let mut text = [0u8; 9];
/// output.read_exact(&mut text[..moved])?;
/// assert_eq!(&text, b"[package]");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_SPLICE`, Linux 5.7.
#[derive(Debug)]
pub struct Splice<D, E> {
    from: D,
    from_offset: u64,
    to: E,
    to_offset: u64,
    len: u32,
    flags: SpliceFlags,
}

impl<D: Descriptor, E: Descriptor> Splice<D, E> {
    /// Moves up to `len` bytes, at the current positions.
    pub fn new(from: D, to: E, len: u32) -> Splice<D, E> {
        let flags = SpliceFlags::empty();
        Splice { from, from_offset: CURRENT_POSITION, to, to_offset: CURRENT_POSITION, len, flags }
    }

    /// Takes from `offset` bytes after the start, and leaves the position alone. Not for a pipe: `ESPIPE`.
    pub fn from_offset(mut self, offset: u64) -> Self {
        self.from_offset = offset;
        self
    }

    /// Puts to `offset` bytes after the start, and leaves the position alone. Not for a pipe: `ESPIPE`.
    pub fn to_offset(mut self, offset: u64) -> Self {
        self.to_offset = offset;
        self
    }

    /// Hints.
    pub fn flags(mut self, flags: SpliceFlags) -> Self {
        self.flags = flags;
        self
    }
}

impl<D, E> Sealed for Splice<D, E> {}

impl<D: Descriptor, E: Descriptor> Op for Splice<D, E> {
    gives!(usize);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let fds = (self.from.lower_fd(cx), self.to.lower_fd(cx));
        lowered(|| {
            let Splice { from_offset, to_offset, len, flags, .. } = *self;
            Ok(RawOp::Splice { from: fds.0?, from_offset, to: fds.1?, to_offset, len, flags: flags.bits() })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.from.finished(&outcome);
        self.to.finished(&outcome);
        outcome.result().map(|len| len as usize)
    }
}
