//! Doing nothing.

use crate::{
    Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp},
    sealed::Sealed,
};

/// Does nothing, successfully. It goes all the way through the engine, so it measures what that costs.
///
/// ```
/// aio::single(aio::op::Nop::new())?;
/// # Ok::<(), aio::Error>(())
/// ```
///
/// `IORING_OP_NOP`, Linux 5.1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nop(());

impl Nop {
    /// A no-op.
    pub const fn new() -> Nop {
        Nop(())
    }
}

impl Sealed for Nop {}

impl Op for Nop {
    gives!(());

    #[inline]
    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        RawOp::Nop
    }

    #[inline]
    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        outcome.unit()
    }
}
