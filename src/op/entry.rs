//! Entries that the program builds itself.
#![allow(unsafe_code)]

use crate::{
    Error, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp},
    sealed::Sealed,
};
use std::fmt;

/// An entry for the ring as the program has built it: a `struct io_uring_sqe` of 64 bytes. For what this library has no
/// operation for.
///
/// The output is the number that the kernel gave. The library sets `user_data`, and the flags of a link.
///
/// ```
/// use aio::{Error, op::Raw};
///
/// // A no-op: the opcode is the first byte, and is zero.
/// // SAFETY: it has no pointers, completes once, and touches nothing.
/// let nop = unsafe { Raw::new([0; 8]) };
/// match aio::single(nop) {
///     Ok(result) => assert_eq!(result, 0),
///     Err(Error::Unsupported(why)) => println!("{why}"),      // the emulation
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// For io_uring only: the emulation gives [`Unsupported`](Error::Unsupported).
pub struct Raw {
    entry: [u64; 8],
}

impl Raw {
    /// Takes the entry's bytes, in the machine's own order, as `io_uring_enter(2)` describes them.
    ///
    /// The byte of the flags (`IOSQE_…`, the second one) must be zero; otherwise the operation gives
    /// [`Invalid`](Error::Invalid). `user_data` is overwritten.
    ///
    /// # Safety
    ///
    /// As long as the value exists it can be run, also again and by safe code, for it comes back with its result. So
    /// from now on until it is dropped, on whichever thread it is run, all of this holds:
    ///
    /// - Every address in the entry, and in what these lead to, is valid for what the kernel does with it, and nothing
    ///   else uses the memory in a way that conflicts with that. An operation that is cancelled, or under a time limit,
    ///   uses it until its end as well.
    /// - The operation has exactly one completion. It is not multishot, and makes no notifications.
    /// - It is not an operation that only has a meaning together with another entry (`IORING_OP_LINK_TIMEOUT`), nor one
    ///   that finds other entries by their `user_data` and ends or changes them (`IORING_OP_ASYNC_CANCEL`,
    ///   `IORING_OP_POLL_REMOVE`, `IORING_OP_TIMEOUT_REMOVE`), nor one that posts completions to a ring of this library
    ///   (`IORING_OP_MSG_RING`).
    /// - It uses no table of the ring, for these are the library's: no direct descriptors, registered buffers, buffer
    ///   groups, personalities.
    /// - It neither closes nor changes descriptors that are the library's, or that others own and rely on, as
    ///   [I/O safety](std::io#io-safety) demands.
    ///
    /// A descriptor that is its result belongs to whoever gets the number; nobody closes it if the number is lost.
    pub unsafe fn new(entry: [u64; 8]) -> Raw {
        Raw { entry }
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("opcode", &self.entry[0].to_ne_bytes()[0]).finish_non_exhaustive()
    }
}

impl Sealed for Raw {}

impl Op for Raw {
    gives!(u32);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let op = RawOp::Entry(&self.entry);
        if !cx.supports(&op) {
            return RawOp::Invalid(Error::Unsupported(&"raw entries are for io_uring, and this engine emulates it"));
        }
        if self.entry[0].to_ne_bytes()[1] != 0 {
            return RawOp::Invalid(Error::Invalid(
                &"the flags of a raw entry are the library's to set; leave them zero",
            ));
        }
        op
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<u32> {
        outcome.result()
    }
}
