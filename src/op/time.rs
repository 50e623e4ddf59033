//! Time.

use crate::{
    Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp},
    sealed::Sealed,
    sys::{self, Timespec},
};
use std::time::{Duration, Instant, SystemTime};

/// What a [`Timeout`] counts by; see `clock_gettime(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Clock {
    /// Never set, stands still while the system sleeps.
    #[default]
    Monotonic,
    /// Never set, goes on while the system sleeps. Where a system lacks it, the monotonic one.
    Boot,
    /// The time of day, which may be set.
    Realtime,
}

impl Clock {
    pub(crate) fn id(self) -> libc::clockid_t {
        match self {
            Clock::Monotonic => libc::CLOCK_MONOTONIC,
            Clock::Boot => sys::CLOCK_BOOTTIME,
            Clock::Realtime => libc::CLOCK_REALTIME,
        }
    }

    /// The clock's time, since its own beginning.
    pub fn now(self) -> Duration {
        Duration::from_nanos(sys::now(self.id()))
    }
}

/// Lets time pass. Its end is a success, and does not break a chain.
///
/// It is not early, and late by what the system needs to wake a thread, some 50 µs; short times are not rounded. Zero,
/// and a time that has passed already, end at once. Times of more than 146 years are cut to that.
///
/// ```
/// use aio::op::Timeout;
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// aio::single(Timeout::after(Duration::from_micros(200)))?;
/// assert!(start.elapsed() >= Duration::from_micros(200));
/// # Ok::<(), aio::Error>(())
/// ```
///
/// `IORING_OP_TIMEOUT`, Linux 5.4; by the monotonic clock and outside a chain it is kept by the engine, which is
/// cheaper.
#[derive(Clone, Copy, Debug)]
pub struct Timeout {
    clock: Clock,
    absolute: bool,
    at: Timespec,
}

impl Timeout {
    /// A time from the operation's start.
    pub fn after(duration: Duration) -> Timeout {
        Timeout { clock: Clock::Monotonic, absolute: false, at: Timespec::from_duration(duration) }
    }

    /// A time on a clock, since that clock's beginning.
    ///
    /// ```
    /// use aio::op::{Clock, Timeout};
    /// use std::time::Duration;
    ///
    /// let soon = Clock::Boot.now() + Duration::from_millis(1);
    /// aio::single(Timeout::at(Clock::Boot, soon))?;
    /// # Ok::<(), aio::Error>(())
    /// ```
    pub fn at(clock: Clock, time: Duration) -> Timeout {
        Timeout { clock, absolute: true, at: Timespec::from_duration(time) }
    }

    /// An instant.
    pub fn until(instant: Instant) -> Timeout {
        let left = instant.saturating_duration_since(Instant::now());
        Timeout::at(Clock::Monotonic, Clock::Monotonic.now().saturating_add(left))
    }

    /// A time of day. If the clock is set meanwhile, this follows.
    pub fn until_system_time(time: SystemTime) -> Timeout {
        Timeout::at(Clock::Realtime, time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    /// Counts a relative time by another clock.
    pub fn clock(mut self, clock: Clock) -> Timeout {
        self.clock = clock;
        self
    }
}

impl Sealed for Timeout {}

impl Op for Timeout {
    gives!(());

    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        RawOp::Timeout { clock: self.clock, absolute: self.absolute, at: self.at }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        outcome.unit()
    }
}
