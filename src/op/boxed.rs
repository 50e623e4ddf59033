//! An operation whose type is forgotten.

use crate::{
    Error, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp},
    queue::Done,
    sealed::Sealed,
};

/// Any operation, as one type: for the tests, which make batches and chains at run time.
#[doc(hidden)]
pub struct Boxed<'a, V> {
    inner: Box<dyn Erased<V> + 'a>,
}

impl<'a, V: 'a> Boxed<'a, V> {
    /// `map` makes the value of the operation's result. It is called when the operation has ended, and never if it did
    /// not run at all.
    pub fn new<O: Op + 'a>(op: O, map: impl FnOnce(Done<O>) -> Result<V> + 'a) -> Boxed<'a, V> {
        Boxed { inner: Box::new(Held(Some((op, map)))) }
    }
}

/// In its box it does not move, as [`Op::lower`] demands.
trait Erased<V> {
    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp;
    fn settle(&mut self, outcome: Outcome<'_>) -> Result<V>;
}

struct Held<O, M>(Option<(O, M)>);

const USED: Error = Error::Invalid(&"a boxed operation runs once");

impl<V, O: Op, M: FnOnce(Done<O>) -> Result<V>> Erased<V> for Held<O, M> {
    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        self.0.as_mut().map_or(RawOp::Invalid(USED), |(op, _)| op.lower(cx))
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<V> {
        let (mut op, map) = self.0.take().ok_or(USED)?;
        let result = op.settle(outcome);
        map(Done { result, op })
    }
}

impl<V> Sealed for Boxed<'_, V> {}

impl<V> Op for Boxed<'_, V> {
    gives!(V);

    /// It may carry a time limit.
    const ENTRIES: u32 = 2;

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        self.inner.lower(cx)
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<V> {
        self.inner.settle(outcome)
    }
}
