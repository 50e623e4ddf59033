//! What an operation may carry: a time limit, a link to the next one.

use crate::{
    Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp, Settled},
    sealed::Sealed,
};
use std::time::Duration;

/// An operation under a time limit; made by [`Op::timeout`].
#[derive(Debug)]
pub struct Timed<O> {
    op: O,
    limit: Duration,
}

impl<O> Timed<O> {
    pub(crate) fn new(op: O, limit: Duration) -> Timed<O> {
        Timed { op, limit }
    }

    /// The operation.
    ///
    /// ```
    /// use aio::op::*;
    /// use std::time::Duration;
    ///
    /// let (a, _b) = std::os::unix::net::UnixStream::pair()?;
    /// let mut recv = Recv::new(&a, vec![0u8; 16]).timeout(Duration::from_secs(1));
    /// assert_eq!(recv.get_ref().buf().len(), 16);
    /// recv.get_mut().buf_mut().truncate(8);
    /// assert_eq!(recv.into_inner().into_buf(), [0; 8]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn get_ref(&self) -> &O {
        &self.op
    }

    /// The operation, to be changed before it is run.
    pub fn get_mut(&mut self) -> &mut O {
        &mut self.op
    }

    /// The operation without the limit.
    pub fn into_inner(self) -> O {
        self.op
    }
}

impl<O> Sealed for Timed<O> {}

impl<O: Op> Op for Timed<O> {
    type Output = O::Output;
    type Value = O::Value;

    /// The operation's own, and one for the time.
    const ENTRIES: u32 = 2;

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        cx.limit(self.limit);
        self.op.lower(cx)
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<O::Value> {
        self.op.settle(outcome)
    }

    fn output(self, value: Settled<O::Value>) -> O::Output {
        self.op.output(value)
    }
}

/// An operation that is linked to the next one of its tuple; made by [`Op::link`] and [`Op::hard_link`].
#[derive(Debug)]
pub struct Linked<O, const HARD: bool> {
    pub(crate) op: O,
}

impl<O, const HARD: bool> Linked<O, HARD> {
    pub(crate) fn new(op: O) -> Linked<O, HARD> {
        Linked { op }
    }
}

impl<O, const HARD: bool> Sealed for Linked<O, HARD> {}
