//! How a runtime is made, and what it has done.

use super::{embed::Ticker, runtime::Runtime, stack::StackStats};
use crate::{Backend, SetupError, driver::pool};
use std::{borrow::Cow, time::Duration};

/// Bytes.
const LARGEST_BUFFER: usize = 1 << 30;

/// How a runtime is made.
///
/// ```
/// use aio::{Backend, coro};
///
/// let config = coro::Config::new().backend(Backend::Poll).stack_size(64 << 10).name("tiny");
/// assert_eq!(config.run(|| coro::current().name())?.as_deref(), Some("tiny"));
/// # Ok::<(), aio::SetupError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing until it is `run`"]
pub struct Config {
    pub(super) engine: crate::Config,
    pub(super) stack_size: usize,
    pub(super) max_workers: usize,
    pub(super) worker_idle: Duration,
    pub(super) name: Option<Cow<'static, str>>,
    pub(super) overflow_report: bool,
    /// How many buffers there are to receive into, and their size.
    pub(super) pool: (u32, u32),
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

impl Config {
    /// Stacks of 256 KiB, at most 32 workers, the engine's own defaults.
    pub const fn new() -> Config {
        Config {
            engine: crate::Config::new(),
            stack_size: 256 << 10,
            max_workers: 32,
            worker_idle: Duration::from_secs(5),
            name: None,
            overflow_report: true,
            pool: (256, 16 << 10),
        }
    }

    /// How the engine is made. Replaces what [`backend`](Self::backend) and [`entries`](Self::entries) have set.
    pub fn engine(mut self, engine: crate::Config) -> Config {
        self.engine = engine;
        self
    }

    /// As [`aio::Config::backend`](crate::Config::backend).
    pub fn backend(mut self, backend: Backend) -> Config {
        self.engine = self.engine.backend(backend);
        self
    }

    /// As [`aio::Config::entries`](crate::Config::entries).
    pub fn entries(mut self, entries: u32) -> Config {
        self.engine = self.engine.entries(entries);
        self
    }

    /// Bytes of stack for a task, from 16 KiB to 1 GiB: address space, of which memory is used as it is touched. Another
    /// size is an error of each [`Builder::spawn`](super::Builder::spawn) that names none.
    pub fn stack_size(mut self, bytes: usize) -> Config {
        self.stack_size = bytes;
        self
    }

    /// How many threads there may be for [offloaded](super::offload) code; what finds none free waits. With 0 it runs
    /// on the runtime's own thread. The emulation's workers are bounded in the same way, apart from these.
    pub fn max_workers(mut self, workers: usize) -> Config {
        self.max_workers = workers;
        self.engine = self.engine.max_workers(workers);
        self
    }

    /// How long an idle worker thread stays.
    pub fn worker_idle(mut self, idle: Duration) -> Config {
        self.worker_idle = idle;
        self.engine = self.engine.worker_idle(idle);
        self
    }

    /// The buffers that connections [receive](crate::net::TcpStream::recv_pooled) into: how many (rounded up to a power
    /// of two, at most 32768), and the size of each in bytes, up to 1 GiB. 256 of 16 KiB, unless this is called.
    ///
    /// The pool is made when it is first used, and its memory is touched only as it fills. A buffer is taken when
    /// something has come. What comes while none is free is received into memory of its own when a task asks for it:
    /// nothing is lost, and nobody waits for another task to give a buffer back. With 0 buffers that is always so.
    pub fn pool(mut self, buffers: usize, size: usize) -> Config {
        let buffers = buffers.min(pool::MOST as usize);
        let buffers = if buffers == 0 { 0 } else { buffers.next_power_of_two() };
        self.pool = (buffers as u32, size.clamp(1, LARGEST_BUFFER) as u32);
        self
    }

    /// The name of the root task, for reports.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Config {
        self.name = Some(name.into());
        self
    }

    /// Whether a stack overflow is reported, which takes a handler for `SIGSEGV` and `SIGBUS` in the process, installed
    /// at the first runtime. Faults that are none of ours go on to the handler that was there before. Without it the
    /// process still ends at an overflow, with less to say.
    pub fn overflow_report(mut self, on: bool) -> Config {
        self.overflow_report = on;
        self
    }

    /// As [`coro::run`](super::run), with this configuration.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn run<R>(self, f: impl FnOnce() -> R) -> Result<R, SetupError> {
        Runtime::enter(self, |_| f())
    }

    /// As [`coro::embed`](super::embed), with this configuration.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn embed<R>(self, f: impl FnOnce(&Ticker<'_>) -> R) -> Result<R, SetupError> {
        let config = Config { engine: self.engine.pollable(), ..self };
        Runtime::enter(config, |runtime| f(&Ticker::new(runtime)))
    }
}

/// What a runtime has done so far; from [`stats`]. What its engine has done tells [`aio::stats`](crate::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks that were spawned.
    pub spawned: u64,
    /// Tasks that have not ended, without the root.
    pub alive: usize,
    /// How often a task was resumed.
    pub switches: u64,
    /// Its stacks. Counting them looks at each stack's memory.
    pub stacks: StackStats,
    /// Its buffers to receive into.
    pub pool: PoolStats,
}

/// The buffers of a runtime, which [`Config::pool`] describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// How many there are: none before the first use.
    pub buffers: usize,
    /// How many of them hold something that was received and not given back.
    pub used: usize,
}

/// What the calling task's runtime has done; all zero outside one.
///
/// ```
/// use aio::coro;
///
/// coro::run(|| {
///     coro::spawn(|| ()).join().unwrap();
///     let stats = coro::stats();
///     assert_eq!((stats.spawned, stats.alive, stats.stacks.made), (1, 0, 1));
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub fn stats() -> Stats {
    Runtime::current_runtime().map_or_else(Stats::default, |runtime| Stats {
        spawned: runtime.table.made(),
        alive: runtime.table.len(),
        switches: runtime.switches(),
        stacks: runtime.stack_stats(),
        pool: runtime
            .streams
            .made_pool()
            .map_or_else(PoolStats::default, |pool| PoolStats { buffers: pool.count(), used: pool.used() }),
    })
}
