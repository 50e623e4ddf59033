//! Operations: what a person may ask the kernel to do.
//!
//! Every operation is a plain struct that borrows (or owns) its descriptor and its buffers. Building one does nothing;
//! [`single`](crate::single), [`multi`](crate::multi) and [`complete`](crate::complete) start it and wait for it.
//!
//! `use aio::op::*;` brings all of them into scope, with the trait [`Op`] that adds `.link()`, `.hard_link()` and
//! `.timeout(…)`.

/// For an operation of which a batch gives the value and nothing else.
macro_rules! gives {
    ($value:ty) => {
        type Output = $value;
        type Value = $value;

        #[inline]
        fn output(self, value: $crate::op::Settled<$value>) -> $value {
            value.0
        }
    };
}

mod addr;
mod boxed;
mod bundle;
mod cancel;
mod child;
mod dir;
mod direct;
mod entry;
mod event;
mod file;
mod futex;
mod meta;
mod msg;
mod multi;
mod nop;
mod open;
mod path;
mod pipe;
mod poll;
mod raw;
mod recv;
mod send;
mod socket;
mod sockopt;
mod splice;
#[cfg(test)]
mod tests;
mod time;
mod vectored;
mod wait_id;
mod wake;
mod zero_copy;

pub use addr::Address;
#[doc(hidden)]
pub use boxed::Boxed;
pub use bundle::SendBundle;
pub use cancel::Cancel;
pub use child::{ChildExit, Exit};
pub use dir::{LinkAt, MkDirAt, RenameAt, RenameFlags, SymlinkAt, UnlinkAt};
pub use direct::{AcceptedFile, Direct, Install};
pub use entry::Raw;
pub use event::{EventSource, Notify, WaitEvent};
pub use file::{Advice, Fadvise, Fallocate, FallocateFlags, Fsync, Ftruncate, Read, Write};
pub use futex::{FutexWait, FutexWake, FutexWord};
pub use meta::{FileType, Statx, StatxFlags, StatxMask, StatxResult, Timestamp};
pub use msg::{Control, ControlMessage, Received, RecvMsg, SendMsg};
pub(crate) use multi::received;
pub use multi::{AcceptMulti, Message, MultiOp, PollMulti, ReadMulti, RecvMsgMulti, RecvMulti, TimeoutMulti};
pub use nop::Nop;
pub use open::{CURRENT_DIR, Close, OpenAt, OpenFlags, OpenInto};
pub use path::PathArg;
pub use pipe::{Pipe, Tee};
pub use poll::{Poll, PollEvents};
pub use recv::{Recv, RecvFlags, RecvFrom};
pub use send::{Send, SendFlags, SendTo};
pub use socket::{Accept, Accepted, Bind, Connect, Domain, Listen, Shutdown, Socket, SocketType};
pub use sockopt::{GetSockOpt, SetSockOpt, SocketOption, option};
pub use splice::{Splice, SpliceFlags};
pub use time::{Clock, Timeout};
pub use vectored::{Readv, Writev};
pub use wait_id::{ChildState, WaitId, Waited, Who};
pub use wake::WakeQueue;
pub use zero_copy::{SendMsgZc, SendZc};

pub(crate) use raw::{CURRENT_POSITION, CUT, Fd, Multi, RawOp, Target};

use crate::{
    Result,
    link::{Linked, Timed},
    sealed::Sealed,
};
use std::time::Duration;

#[doc(hidden)]
pub use crate::lower::{Lower, Outcome};

/// One operation.
///
/// The trait is sealed: its implementors are the structs of [this module](self), and those structs under a
/// [`timeout`](Op::timeout).
///
/// What the library calls by itself cannot be called from outside, where it could say that bytes are filled which are
/// not:
///
/// ```compile_fail,E0308
/// use aio::op::*;
/// use std::mem::MaybeUninit;
///
/// let file = std::fs::File::open("Cargo.toml").unwrap();
/// let mut bytes = [MaybeUninit::uninit(); 64];
/// let (filled, rest) = Op::output(Read::new(&file, &mut bytes[..]), 64);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operation",
    note = "an operation that carries `.link()` or `.hard_link()` can only stand in a tuple, before the one it is linked to",
    note = "`.timeout(…)` goes before `.link()`",
    note = "`coro::select` also takes references to join handles, events and receivers; for anything else there is \
            `coro::race`, which takes closures"
)]
pub trait Op: Sealed + Sized {
    /// What the operation gives when it succeeds, and with it the buffer, if it owned one.
    type Output;

    /// What it gives when it succeeds and comes back itself, with all that it owns: `Output` without the buffer. A
    /// count of bytes, for example, where `Output` may be a count and a `Vec`.
    type Value;

    /// How many entries of a queue it takes.
    #[doc(hidden)]
    const ENTRIES: u32 = 1;

    /// Starts the next operation of the tuple when this one has succeeded, and skips it otherwise (`IOSQE_IO_LINK`).
    ///
    /// A short `Read`, `Write`, `Readv`, `Writev`, `Splice` or `Tee` counts as a failure here; a short `Recv` or `Send`
    /// does only with the `WAITALL` flag. Every operation of the broken rest of the chain gives
    /// [`Error::Skipped`](crate::Error::Skipped).
    ///
    /// The last operation of a batch cannot be linked; that does not compile:
    ///
    /// ```compile_fail,E0277
    /// use aio::op::*;
    /// aio::complete((Nop::new(), Nop::new().link()));
    /// ```
    fn link(self) -> Linked<Self, false> {
        Linked::new(self)
    }

    /// Starts the next operation of the tuple when this one has ended, whatever its result (`IOSQE_IO_HARDLINK`).
    fn hard_link(self) -> Linked<Self, true> {
        Linked::new(self)
    }

    /// Gives up after `limit`: the operation is cancelled and gives [`Error::TimedOut`](crate::Error::TimedOut), unless
    /// it has a result by then. The clock (`CLOCK_MONOTONIC`) starts with the operation, so in a chain it starts when
    /// the operation's turn comes.
    ///
    /// A result always wins. What cannot be cancelled (a disk read that the device is working on) may take longer than
    /// `limit` and then succeeds. A zero `limit` gives the operation one attempt. When several are nested the shortest
    /// counts.
    ///
    /// ```
    /// use aio::{Error, op::*};
    /// use std::time::Duration;
    ///
    /// let (a, _b) = std::os::unix::net::UnixStream::pair()?;
    /// let nothing = aio::single(Recv::new(&a, &mut [0u8; 16]).timeout(Duration::from_millis(5)));
    /// assert_eq!(nothing, Err(Error::TimedOut));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    fn timeout(self, limit: Duration) -> Timed<Self> {
        Timed::new(self, limit)
    }

    /// Describes the operation to an engine. Called when it no longer moves, and again only after `settle`.
    #[doc(hidden)]
    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp;

    /// Turns the engine's answer into the value. The operation keeps its buffers, and may move and be lowered again.
    /// Called once for each time it was lowered.
    #[doc(hidden)]
    fn settle(&mut self, outcome: Outcome<'_>) -> Result<Self::Value>;

    /// Turns the value into what a batch gives.
    #[doc(hidden)]
    fn output(self, value: Settled<Self::Value>) -> Self::Output;

    /// Turns the engine's answer into what a batch gives.
    #[doc(hidden)]
    #[inline]
    fn raise(mut self, outcome: Outcome<'_>) -> Result<Self::Output> {
        let value = self.settle(outcome)?;
        Ok(self.output(Settled(value)))
    }
}

/// What `settle` has just given, of the operation that it is handed to.
///
/// Nobody else makes one. `output` takes it for the truth: where it is a number, so many bytes of the buffer are filled.
#[doc(hidden)]
pub struct Settled<V>(V);

/// How one gets at the buffer of an operation that is not in flight: before it is run, or when a queue has given it back.
macro_rules! keeps_buffer {
    ($($field:ident).+) => {
        /// The buffer.
        pub fn buf(&self) -> &B {
            &self.$($field).+
        }

        /// The buffer, to be changed before the operation is run.
        pub fn buf_mut(&mut self) -> &mut B {
            &mut self.$($field).+
        }

        /// Gives up the operation for its buffer.
        pub fn into_buf(self) -> B {
            self.$($field).+
        }

        /// Gives up the operation for what it works on and its buffer.
        pub fn into_parts(self) -> (D, B) {
            (self.fd, self.$($field).+)
        }
    };
}
use keeps_buffer;

/// Builds the plain operation, or one that fails in its turn with the error found.
#[inline]
fn lowered(build: impl FnOnce() -> Result<RawOp>) -> RawOp {
    build().unwrap_or_else(RawOp::Invalid)
}
