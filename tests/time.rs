//! Timeouts as operations: clocks, precision, cost, number.

mod common;

use aio::{op::*, windowed};
use common::{NEVER, each_backend, each_backend_with, each_engine};
use std::time::{Duration, Instant, SystemTime};

const SHORT: Duration = Duration::from_millis(5);
const CLOCKS: [Clock; 3] = [Clock::Monotonic, Clock::Boot, Clock::Realtime];

#[test]
fn relative_times_are_not_early_by_any_clock() {
    each_engine(|_| {
        for clock in CLOCKS {
            let (start, by_clock) = (Instant::now(), clock.now());
            assert_eq!(aio::single(Timeout::after(SHORT).clock(clock)), Ok(()));
            let passed = if clock == Clock::Realtime { start.elapsed() } else { clock.now() - by_clock };
            assert!(passed >= SHORT, "{clock:?}: {passed:?}");
            assert!(passed < SHORT * 100, "{clock:?}: {passed:?}");
        }
    });
}

#[test]
fn absolute_times_are_not_early_by_any_clock() {
    each_engine(|_| {
        for clock in CLOCKS {
            let at = clock.now() + SHORT;
            assert_eq!(aio::single(Timeout::at(clock, at)), Ok(()));
            assert!(clock.now() >= at, "{clock:?}");
        }
        let (instant, time) = (Instant::now() + SHORT, SystemTime::now() + SHORT);
        aio::multi((Timeout::until(instant), Timeout::until_system_time(time))).unwrap();
        assert!(Instant::now() >= instant && SystemTime::now() >= time);
    });
}

#[test]
fn zero_and_the_past_end_at_once() {
    each_engine(|_| {
        let start = Instant::now();
        for clock in CLOCKS {
            let past = Timeout::at(clock, Duration::from_nanos(1));
            let zero = Timeout::after(Duration::ZERO).clock(clock);
            assert_eq!(aio::multi((zero, past, Timeout::at(clock, Duration::ZERO))), Ok(((), (), ())));
            assert_eq!(aio::multi((zero.link(), past.link(), Nop::new())), Ok(((), (), ())));
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        aio::multi((Timeout::until(start), Timeout::until_system_time(before))).unwrap();
        assert!(start.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn enormous_times_wait_until_they_are_given_up() {
    each_engine(|_| {
        for clock in CLOCKS {
            let (after, at) = (Timeout::after(Duration::MAX).clock(clock), Timeout::at(clock, Duration::MAX));
            let done = aio::complete((after.timeout(SHORT), at.timeout(SHORT))).unwrap();
            assert_eq!(done.errors, 2, "{clock:?}: {done:?}");
        }
    });
}

#[test]
fn timeouts_end_in_the_order_of_their_times() {
    each_engine(|_| {
        let times = [50u64, 10, 40, 0, 30, 20].map(|ms| Timeout::after(Duration::from_millis(ms)));
        let mut order = Vec::new();
        aio::multi(windowed(times, 6).for_each(|at, result| order.push((at, result)))).unwrap();
        assert_eq!(order, [3, 1, 5, 4, 2, 0].map(|at| (at, Ok(()))));
    });
}

#[test]
fn a_batch_of_timeouts_takes_as_long_as_the_longest() {
    each_engine(|_| {
        let start = Instant::now();
        aio::multi((Timeout::after(SHORT * 2), Timeout::after(SHORT * 10), Timeout::after(SHORT * 10))).unwrap();
        assert!(start.elapsed() >= SHORT * 10);
    });
}

#[test]
fn a_thousand_timeouts_at_once_with_a_small_ring() {
    each_backend_with(
        |config| config.entries(8),
        |_| {
            let timeout = |i: u64| Timeout::after(Duration::from_micros(i * 37 % 20_000)).clock(CLOCKS[i as usize % 3]);
            let start = Instant::now();
            assert_eq!(aio::multi((0..1000).map(timeout).collect::<Vec<_>>()), Ok(vec![(); 1000]));
            assert!(start.elapsed() >= Duration::from_micros(19_900));
            let limited = (0..1000).map(|i| Timeout::after(NEVER).timeout(Duration::from_micros(i * 37 % 20_000)));
            assert_eq!(aio::complete(limited.collect::<Vec<_>>()).unwrap().errors, 1000);
        },
    );
}

/// The time that the calling thread has spent computing.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is a local.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn times_below_a_millisecond_are_neither_rounded_away_nor_spun_through() {
    each_backend(|backend| {
        let tick = Duration::from_micros(300);
        let (start, cpu) = (Instant::now(), thread_time());
        let waits = (0..50).map(|_| {
            let before = Instant::now();
            aio::single(Timeout::after(tick)).unwrap();
            before.elapsed()
        });
        let waits: Vec<_> = waits.collect();
        let (passed, cpu) = (start.elapsed(), thread_time() - cpu);
        assert!(waits.iter().all(|&wait| wait >= tick), "{backend}: {waits:?}");
        // Most of them may be late on a loaded machine, so only the shortest is bounded, ten-fold.
        assert!(waits.iter().any(|&wait| wait < 10 * tick), "{backend}: {waits:?}");
        assert!(cpu < passed / 2, "{backend}: {cpu:?} of computing in {passed:?}");
    });
}

#[test]
fn waiting_for_a_timeout_takes_few_system_calls() {
    each_engine(|engine| {
        aio::single(Nop::new()).unwrap();
        for clock in CLOCKS {
            let before = aio::stats();
            aio::single(Timeout::after(4 * SHORT).clock(clock)).unwrap();
            let calls = (aio::stats() - before).system_calls();
            assert!(calls <= 10, "{} by {clock:?}: {calls}", engine.name);
        }
    });
}
