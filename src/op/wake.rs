//! Waking another queue.
#![allow(unsafe_code)]

use crate::{
    Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp},
    queue::Waker,
    sealed::Sealed,
};

/// Wakes a queue of this thread or another when its turn comes, as [`Waker::wake`] does at once: at the end of a chain,
/// say, whose results that queue's thread is to look at.
///
/// ```
/// use aio::{Queue, op::*};
/// use std::{sync::mpsc, thread};
///
/// let (give, take) = mpsc::channel();
/// let other = thread::spawn(move || -> aio::Result<()> {
///     let queue = Queue::<()>::new(1)?;
///     give.send(queue.waker()?).unwrap();
///     queue.wait(1)?.for_each(drop);              // until it is woken
///     Ok(())
/// });
/// let waker = take.recv().unwrap();
/// let file = tempfile::tempfile()?;
/// aio::multi((Write::new(&file, "done").link(), Fsync::new(&file).link(), WakeQueue::new(waker)))?;
/// other.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A message to the queue's ring (`IORING_REGISTER_SEND_MSG_RING`, Linux 6.13), or a write to an `eventfd`. It does not
/// fail: a queue that is gone needs not be woken.
#[derive(Clone, Debug)]
pub struct WakeQueue(Waker);

impl WakeQueue {
    /// Wakes the queue that has made `waker`.
    pub fn new(waker: Waker) -> WakeQueue {
        WakeQueue(waker)
    }

    /// Gives up the operation for the handle.
    pub fn into_waker(self) -> Waker {
        self.0
    }
}

impl Sealed for WakeQueue {}

impl Op for WakeQueue {
    gives!(());

    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        RawOp::Wake { bell: self.0.bell() }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        outcome.unit()
    }
}
