//! What goes into a queue's user's hands: tokens, results with their operations, and what could not be submitted.

use crate::{Error, Result, op::MultiOp, op::Op};
use std::{fmt, io};

/// Names an operation of a [`Queue`](super::Queue) while it is in flight, and no other ever after.
///
/// When the operation has ended the token is stale: a cancel with it finds nothing. It holds a place and the number of
/// times that the place was used, 64 bits wide, so it does not come back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    pub(super) generation: u64,
    pub(super) index: u32,
    pub(super) queue: u32,
}

/// An operation that has ended: its result, and the operation itself with all that it owns.
///
/// Mappers take it: see [`Queue::submit`](super::Queue::submit). The operation can be submitted again as it is, or be
/// taken apart (`into_buf`, `into_parts`), so that buffers circulate.
#[derive(Debug)]
pub struct Done<O: Op> {
    /// What it gave.
    pub result: Result<O::Value>,
    /// What was submitted.
    pub op: O,
}

/// One result of an operation that goes on: see [`Queue::submit_multi`](super::Queue::submit_multi).
#[derive(Debug)]
pub struct Shot<O: MultiOp> {
    /// What it gave.
    pub result: Result<O::Item>,
    /// There will be more. If not, the operation has ended.
    pub more: bool,
    /// What was submitted, if it has ended.
    pub op: Option<O>,
}

/// An operation that could not be submitted. Nothing has happened; operation and mapper come back.
///
/// `?` turns it into an [`Error`] or an [`io::Error`], and drops the two.
pub enum NotSubmitted<O, M> {
    /// All places of the queue are taken. Take events out of it first.
    Full(O, M),
    /// A chain needs more entries than the queue's ring has, and is never split.
    TooLong(O, M),
    /// The queue is being dropped.
    Closed(O, M),
    /// The process was forked, and this is the child. The queue is its parent's.
    Forked(O, M),
}

impl<O, M> NotSubmitted<O, M> {
    /// The operation and the mapper.
    pub fn into_parts(self) -> (O, M) {
        match self {
            NotSubmitted::Full(op, map)
            | NotSubmitted::TooLong(op, map)
            | NotSubmitted::Closed(op, map)
            | NotSubmitted::Forked(op, map) => (op, map),
        }
    }

    /// Whether it is for want of a place, so that it may succeed later.
    pub fn is_full(&self) -> bool {
        matches!(self, NotSubmitted::Full(..))
    }

    fn text(&self) -> &'static &'static str {
        match self {
            NotSubmitted::Full(..) => {
                &"the queue is full: take events out of it (wait, poll) before more is submitted, or make it larger"
            }
            NotSubmitted::TooLong(..) => {
                &"the chain needs more entries than the queue has (a timeout takes one of its own): make it larger"
            }
            NotSubmitted::Closed(..) => &"the queue is being dropped, and takes nothing any more",
            NotSubmitted::Forked(..) => &"the process was forked; the child needs a queue of its own",
        }
    }
}

impl<O, M> fmt::Display for NotSubmitted<O, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl<O, M> fmt::Debug for NotSubmitted<O, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotSubmitted::Full(..) => "Full(..)",
            NotSubmitted::TooLong(..) => "TooLong(..)",
            NotSubmitted::Closed(..) => "Closed(..)",
            NotSubmitted::Forked(..) => "Forked(..)",
        })
    }
}

impl<O, M> std::error::Error for NotSubmitted<O, M> {}

impl<O, M> From<NotSubmitted<O, M>> for Error {
    fn from(refused: NotSubmitted<O, M>) -> Error {
        Error::Invalid(refused.text())
    }
}

impl<O, M> From<NotSubmitted<O, M>> for io::Error {
    fn from(refused: NotSubmitted<O, M>) -> io::Error {
        let kind = if refused.is_full() { io::ErrorKind::QuotaExceeded } else { io::ErrorKind::Other };
        io::Error::new(kind, *refused.text())
    }
}
