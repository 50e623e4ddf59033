//! Waiting for a word of memory, and waking those who wait.

use crate::{
    Error, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp},
    sealed::Sealed,
};
use std::sync::{Arc, atomic::AtomicU32};

mod seal {
    pub trait Sealed {}
}

/// A word that a futex operation uses: `&AtomicU32` or `Arc<AtomicU32>`.
///
/// Sealed.
pub trait FutexWord: seal::Sealed {
    /// Where it is. It stays there until the operation is settled.
    #[doc(hidden)]
    fn address(&self) -> *const AtomicU32;
}

impl seal::Sealed for &AtomicU32 {}

impl FutexWord for &AtomicU32 {
    fn address(&self) -> *const AtomicU32 {
        *self
    }
}

impl seal::Sealed for Arc<AtomicU32> {}

impl FutexWord for Arc<AtomicU32> {
    fn address(&self) -> *const AtomicU32 {
        Arc::as_ptr(self)
    }
}

/// Waits until somebody wakes the word, if it holds a value when the wait begins: `FUTEX_WAIT` of `futex(2)`, among the
/// threads of this process. Linux only.
///
/// If the word holds another value the error is `WouldBlock`, at once. As with any futex, one may be woken for a reason
/// of somebody else's: look at the word again.
///
/// Change the word first and wake then, for when exactly the wait begins nobody can tell: what is not linked has no
/// order, and the emulation waits on another thread.
///
/// ```no_run
/// use aio::op::*;
/// use std::{sync::atomic::{AtomicU32, Ordering}, thread, time::Duration};
///
/// let ready = AtomicU32::new(0);
/// thread::scope(|s| {
///     s.spawn(|| {
///         ready.store(1, Ordering::Release);
///         aio::single(FutexWake::new(&ready, 1))
///     });
///     while ready.load(Ordering::Acquire) == 0 {
///         match aio::single(FutexWait::new(&ready, 0)) {
///             Ok(()) => {}
///             Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
///             Err(error) => panic!("{error}"),
///         }
///     }
/// });
/// ```
///
/// `IORING_OP_FUTEX_WAIT`, Linux 6.7; on older kernels with io_uring it is [`Unsupported`](Error::Unsupported). The
/// emulation has a thread of its own for each that waits, whatever [`max_workers`](crate::Config::max_workers) says,
/// and needs `futex_waitv(2)`, Linux 5.16.
#[derive(Debug)]
pub struct FutexWait<W> {
    word: W,
    value: u32,
}

impl<W: FutexWord> FutexWait<W> {
    /// Waits as long as nobody wakes `word`, if it holds `value`.
    pub fn new(word: W, value: u32) -> FutexWait<W> {
        FutexWait { word, value }
    }

    /// Gives up the operation for the word.
    pub fn into_word(self) -> W {
        self.word
    }
}

impl<W> Sealed for FutexWait<W> {}

impl<W: FutexWord> Op for FutexWait<W> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let op = RawOp::FutexWait { word: self.word.address(), value: self.value };
        if cx.supports(&op) {
            return op;
        }
        RawOp::Invalid(Error::Unsupported(
            &"waiting for a futex needs Linux 6.7 with io_uring, or Linux 5.16 with the emulation (epoll or poll)",
        ))
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        outcome.unit()
    }
}

/// Wakes those who wait for a word: `FUTEX_WAKE` of `futex(2)`, among the threads of this process. Linux only.
///
/// The output is how many were woken. It reaches [`FutexWait`]s, and whoever else waits for the word by `futex(2)`, as
/// the locks of the standard library do.
///
/// `IORING_OP_FUTEX_WAKE`, Linux 6.7; by an ordinary system call on older kernels.
#[derive(Debug)]
pub struct FutexWake<W> {
    word: W,
    count: u32,
}

impl<W: FutexWord> FutexWake<W> {
    /// Wakes up to `count` of them.
    pub fn new(word: W, count: u32) -> FutexWake<W> {
        FutexWake { word, count }
    }

    /// Wakes all of them.
    pub fn all(word: W) -> FutexWake<W> {
        FutexWake::new(word, i32::MAX as u32)
    }

    /// Gives up the operation for the word.
    pub fn into_word(self) -> W {
        self.word
    }
}

impl<W> Sealed for FutexWake<W> {}

impl<W: FutexWord> Op for FutexWake<W> {
    gives!(u32);

    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        // The kernel takes a signed number, and 0 of `futex(2)` would wake one.
        match self.count.min(i32::MAX as u32) {
            0 => RawOp::Nop,
            count => RawOp::FutexWake { word: self.word.address(), count },
        }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<u32> {
        outcome.result()
    }
}
