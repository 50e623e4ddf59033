//! Sleeping.

use super::runtime::Runtime;
use crate::{Error, Result, op::Timeout};
use std::time::{Duration, Instant};

/// What stands for longer times than an [`Instant`] can tell.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Lets the other tasks run first. A cheap call that makes no system call while there is nothing to look at.
///
/// Outside a runtime it is [`std::thread::yield_now`].
///
/// # Errors
///
/// [`Error::Canceled`] or [`Error::TimedOut`], as any wait.
#[inline]
pub fn yield_now() -> Result<()> {
    match Runtime::current_runtime() {
        Some(runtime) => runtime.yield_now(),
        None => {
            std::thread::yield_now();
            Ok(())
        }
    }
}

/// Waits for some time to pass (`CLOCK_MONOTONIC`). The task is suspended; outside a runtime the thread is.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// aio::coro::run(|| aio::coro::sleep(Duration::from_micros(300)))??;
/// assert!(start.elapsed() >= Duration::from_micros(300));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Canceled`] or [`Error::TimedOut`], as any wait.
#[inline]
pub fn sleep(duration: Duration) -> Result<()> {
    crate::single(Timeout::after(duration))
}

/// Waits until a moment; as [`sleep`].
///
/// # Errors
///
/// As [`sleep`].
#[inline]
pub fn sleep_until(at: Instant) -> Result<()> {
    crate::single(Timeout::until(at))
}

/// A clock that ticks: the first time after one `period`.
///
/// ```
/// use aio::coro;
/// use std::time::{Duration, Instant};
///
/// coro::run(|| {
///     let start = Instant::now();
///     let mut ticks = coro::interval(Duration::from_millis(2));
///     for _ in 0..3 {
///         ticks.tick()?;
///     }
///     assert!(start.elapsed() >= Duration::from_millis(6));
///     Ok::<(), aio::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
///
/// If `period` is zero.
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval of zero would tick for ever at once");
    let now = Instant::now();
    Interval { next: now.checked_add(period).unwrap_or(now + CENTURY), period }
}

/// A clock that ticks; made by [`interval`].
///
/// Ticks stay in phase: a late one does not delay those after it. Those that were missed altogether are not made up
/// for, but counted.
#[derive(Clone, Debug)]
pub struct Interval {
    next: Instant,
    period: Duration,
}

impl Interval {
    /// Waits for the next tick. Gives how many have passed since the last call, 1 if it was in time.
    ///
    /// # Errors
    ///
    /// As [`sleep`]; the tick is not lost.
    pub fn tick(&mut self) -> Result<u64, Error> {
        sleep_until(self.next)?;
        let late = Instant::now().saturating_duration_since(self.next);
        let missed = u64::try_from(late.as_nanos() / self.period.as_nanos()).unwrap_or(u64::MAX);
        let passed = missed.saturating_add(1);
        self.next += self.period.saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX));
        Ok(passed)
    }

    /// When the next tick is due.
    pub fn next(&self) -> Instant {
        self.next
    }
}
