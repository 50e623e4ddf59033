//! What has no operation: done by a worker thread while a task waits, and at once on a plain thread.

use crate::coro;
use std::io;

/// Runs `f`, which may block the thread for as long as a disk or another process takes, and gives what it returns.
///
/// # Errors
///
/// Those of `f`, and that of a task that is cancelled, or late: then `f` is not called.
pub(crate) fn blocking<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    coro::offload(f)?
}

/// Runs `f` even so.
pub(crate) fn blocking_surely<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    coro::offload_surely(f)
}
