//! A runtime inside somebody else's loop.

use super::{Config, runtime::Runtime};
use crate::{Error, Result, SetupError, sys};
use std::{
    fmt,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

/// Runs `f` with a runtime that does nothing by itself: `f` drives it, by calling [`Ticker::tick`] from a loop of its
/// own. When `f` returns, the tasks that are left are ended as at the end of [`run`](super::run).
///
/// ```
/// use aio::coro;
/// use std::time::Duration;
///
/// coro::embed(|ticker| {
///     let task = coro::spawn(|| coro::sleep(Duration::from_millis(3)));
///     while !task.is_finished() {
///         let next = ticker.tick();
///         // Here the program waits for its own things too: with `ticker.as_fd()` in its poll, at most until `next.at`.
///         std::thread::sleep(next.after().unwrap_or_default().min(Duration::from_millis(1)));
///     }
///     assert_eq!(task.join().unwrap(), Ok(()));
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Errors
///
/// As [`run`](super::run).
pub fn embed<R>(f: impl FnOnce(&Ticker<'_>) -> R) -> Result<R, SetupError> {
    Config::new().embed(f)
}

/// Drives an embedded runtime; given by [`embed`].
pub struct Ticker<'r> {
    runtime: &'r Runtime,
}

/// When a runtime wants to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// Not later than this; `None` if only the descriptor tells.
    pub at: Option<Instant>,
    /// Tasks that have not ended.
    pub tasks: usize,
}

impl Tick {
    /// How long that is from now on.
    pub fn after(&self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

impl<'r> Ticker<'r> {
    pub(super) fn new(runtime: &'r Runtime) -> Ticker<'r> {
        Ticker { runtime }
    }

    /// Runs the tasks that are ready, gives what they ask for to the kernel, and takes what is finished. Does not wait.
    ///
    /// # Panics
    ///
    /// If it is called by a task and not by the closure that was given the ticker.
    pub fn tick(&self) -> Tick {
        assert!(self.runtime.current().is_root(), "only the root of an embedded runtime drives it, not a task");
        self.runtime.tick();
        let at = if self.runtime.has_ready() {
            Some(Instant::now())
        } else {
            self.runtime.engine().next_timer().map(|at| {
                let left = at.saturating_sub(sys::monotonic());
                Instant::now() + Duration::from_nanos(left)
            })
        };
        Tick { at, tasks: self.runtime.table.len() }
    }

    /// A descriptor that is readable when there is something to do: the ring, or the emulation's epoll. To be waited
    /// for, not read. Timers do not make it readable; [`Tick::at`] tells about them.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with [`Backend::Poll`](crate::Backend::Poll), which has none.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>> {
        const WHY: Error = Error::Unsupported(&"the poll backend has no descriptor to wait for; call tick regularly");
        let fd = self.runtime.engine().pollable().ok_or(WHY)?;
        // SAFETY: the engine's own, which lives as long as the runtime.
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }
}

impl fmt::Debug for Ticker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker").finish_non_exhaustive()
    }
}
