//! What an operation may carry: a time limit, a link to the next one.

use crate::{
    Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp},
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
}

impl<O> Sealed for Timed<O> {}

impl<O: Op> Op for Timed<O> {
    type Output = O::Output;

    /// The operation's own, and one for the time.
    const ENTRIES: u32 = 2;

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        cx.limit(self.limit);
        self.op.lower(cx)
    }

    fn raise(self, outcome: Outcome<'_>) -> Result<O::Output> {
        self.op.raise(outcome)
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
