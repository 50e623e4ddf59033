//! Cancelling.

use crate::{
    Descriptor, Error, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp, lowered},
    sealed::Sealed,
};

/// Cancels what this thread has in flight on a descriptor. The output is how many operations that were, which may be
/// none.
///
/// What is cancelled gives [`Error::Canceled`]. It concerns operations that wait, started before this one by the same
/// thread: in this batch, or by an enclosing use of the library. It goes by the open file, so a clone of the descriptor
/// (`try_clone`, `dup(2)`) counts as the same. An operation that is linked behind another and was not started is not
/// concerned.
///
/// ```
/// use aio::{Error, op::*};
///
/// let (a, _b) = std::os::unix::net::UnixStream::pair()?;
/// let mut buffer = [0u8; 8];
/// let done = aio::complete((Recv::new(&a, &mut buffer), Cancel::fd(&a)))?;
/// assert_eq!(done.results, (Err(Error::Canceled), Ok(1)));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_ASYNC_CANCEL` by descriptor, Linux 5.19; on older kernels with io_uring it is
/// [`Unsupported`](Error::Unsupported).
#[derive(Debug)]
pub struct Cancel<D> {
    fd: D,
}

impl<D: Descriptor> Cancel<D> {
    /// By descriptor.
    pub fn fd(fd: D) -> Cancel<D> {
        Cancel { fd }
    }
}

impl<D> Sealed for Cancel<D> {}

impl<D: Descriptor> Op for Cancel<D> {
    gives!(u32);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| Ok(RawOp::CancelFd { fd: self.fd.lower_fd(cx)? }))
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<u32> {
        self.fd.finished(&outcome);
        outcome.result().map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => {
                Error::Unsupported(&"cancelling by descriptor needs Linux 5.19 with io_uring, or the epoll backend")
            }
            _ => error,
        })
    }
}
