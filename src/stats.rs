//! What an engine has done, counted.

use crate::{Backend, engine};

/// Counters of the calling thread's engine, since it was made.
///
/// Two readings around a piece of code tell what it cost:
///
/// ```
/// use aio::op::*;
///
/// let (f, g) = (std::fs::File::open("Cargo.toml")?, std::fs::File::open("README.md")?);
/// let (mut a, mut b) = ([0u8; 16], [0u8; 16]);
/// aio::single(Nop::new())?;                           // makes the engine
/// let before = aio::stats();
/// aio::multi((Read::new(&f, &mut a).at(0), Read::new(&g, &mut b).at(0)))?;
/// let cost = aio::stats() - before;
/// if aio::stats().backend == Some(aio::Backend::IoUring) {
///     assert_eq!(cost.system_calls(), 1);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The engine, or `None` if this thread has none yet.
    pub backend: Option<Backend>,
    /// Calls of `io_uring_enter(2)`.
    pub enters: u64,
    /// Entries given to the ring, time limits and cancellations included.
    pub submitted: u64,
    /// Completions taken from the ring.
    pub completed: u64,
    /// Operations that were done by ordinary system calls on this thread, each attempt counted: by the emulation, or on
    /// a ring whose kernel lacks the opcode.
    pub direct: u64,
    /// Calls of `epoll_wait(2)` or `poll(2)` that the emulation made to wait.
    pub waits: u64,
    /// Calls of `epoll_ctl(2)`.
    pub registrations: u64,
    /// Operations that were handed to worker threads.
    pub jobs: u64,
}

impl Stats {
    /// System calls that this thread made for operations, as far as they are counted: `enters`, `direct`, `waits` and
    /// `registrations`. What the library asks about a descriptor first (`fcntl`, `poll`, `getsockopt`) is not. Those
    /// that worker threads make come on top: one or more for each of the `jobs`.
    pub fn system_calls(&self) -> u64 {
        self.enters + self.direct + self.waits + self.registrations
    }
}

impl std::ops::Sub for Stats {
    type Output = Stats;

    fn sub(self, earlier: Stats) -> Stats {
        Stats {
            backend: self.backend,
            enters: self.enters - earlier.enters,
            submitted: self.submitted - earlier.submitted,
            completed: self.completed - earlier.completed,
            direct: self.direct - earlier.direct,
            waits: self.waits - earlier.waits,
            registrations: self.registrations - earlier.registrations,
            jobs: self.jobs - earlier.jobs,
        }
    }
}

/// The counters of the calling thread's engine; all zero if it has none yet.
pub fn stats() -> Stats {
    engine::existing(|engine| engine.stats()).unwrap_or_default()
}
