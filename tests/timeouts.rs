//! Time limits on operations: `.timeout(…)` alone and in chains.

mod common;

use aio::{Backend, Error, op::*};
use common::{NEVER, each_engine, file_with, os, pipe, write_only};
use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(10);

fn sleep(time: Duration) -> Timeout {
    Timeout::after(time)
}

#[test]
fn a_limit_that_expires_ends_the_operation_not_before_and_counts_as_an_error() {
    each_engine(|_| {
        let ((output, _input), mut buf) = (pipe(), [0u8; 4]);
        let start = Instant::now();
        let done = aio::complete(Read::new(&output, &mut buf).timeout(SOON)).unwrap();
        assert_eq!((done.results, done.errors), (Err(Error::TimedOut), 1));
        assert!(start.elapsed() >= SOON);
    });
}

#[test]
fn a_limit_that_does_not_expire_is_no_error_and_delays_nothing() {
    each_engine(|_| {
        let ((a, b), mut buf) = (UnixStream::pair().unwrap(), [0u8; 4]);
        let recv = Recv::new(&a, &mut buf).timeout(NEVER);
        let done = aio::complete((recv, sleep(SOON).link(), Send::new(&b, b"hey").timeout(NEVER))).unwrap();
        assert_eq!((done.results, done.errors), ((Ok(3), Ok(()), Ok(3)), 0));
    });
}

#[test]
fn an_expired_limit_skips_the_soft_tail() {
    each_engine(|_| {
        let ((output, _input), mut buf) = (pipe(), [0u8; 4]);
        let read = Read::new(&output, &mut buf).timeout(SOON);
        let done = aio::complete((read.link(), Nop::new().hard_link(), Nop::new(), Nop::new())).unwrap();
        let skipped = Err(Error::Skipped);
        assert_eq!((done.results, done.errors), ((Err(Error::TimedOut), skipped, skipped, Ok(())), 3));
    });
}

#[test]
fn an_expired_limit_runs_the_hard_tail() {
    each_engine(|_| {
        let ((output, _input), mut buf) = (pipe(), [0u8; 4]);
        let read = Read::new(&output, &mut buf).timeout(SOON);
        let done = aio::complete((read.hard_link(), Nop::new().link(), Nop::new())).unwrap();
        assert_eq!((done.results, done.errors), ((Err(Error::TimedOut), Ok(()), Ok(())), 1));
    });
}

// The truth table of linked timeouts, measured on the kernel.

#[test]
fn a_limited_timeout_expires_alone() {
    each_engine(|_| assert_eq!(aio::single(sleep(NEVER).timeout(SOON)), Err(Error::TimedOut)));
}

#[test]
fn a_limited_timeout_expires_before_a_soft_tail() {
    each_engine(|_| {
        let done = aio::complete((sleep(NEVER).timeout(SOON).link(), sleep(NEVER))).unwrap();
        assert_eq!(done.results, (Err(Error::TimedOut), Err(Error::Skipped)));
    });
}

#[test]
fn a_limited_timeout_expires_before_a_hard_tail() {
    each_engine(|_| {
        let done = aio::complete((sleep(NEVER).timeout(SOON).hard_link(), sleep(SOON))).unwrap();
        assert_eq!((done.results, done.errors), ((Err(Error::TimedOut), Ok(())), 1));
    });
}

#[test]
fn a_limited_timeout_ends_in_time() {
    each_engine(|_| {
        assert_eq!(aio::single(sleep(SOON).timeout(NEVER)), Ok(()));
        let start = Instant::now();
        let done = aio::complete((sleep(SOON).timeout(NEVER).link(), sleep(SOON).timeout(NEVER))).unwrap();
        assert_eq!(done.errors, 0);
        assert!(start.elapsed() >= 2 * SOON, "the second one starts when the first has ended");
    });
}

#[test]
fn a_limited_operation_that_succeeds_or_fails_at_once() {
    each_engine(|_| {
        let (bad, mut x, mut y) = (write_only(), [0u8; 4], [0u8; 4]);
        assert_eq!(aio::multi((Nop::new().timeout(NEVER).link(), Nop::new())), Ok(((), ())));
        let done = aio::complete((Read::new(&bad, &mut x).timeout(NEVER).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (os(libc::EBADF), Err(Error::Skipped)));
        let done = aio::complete((Read::new(&bad, &mut y).timeout(NEVER).hard_link(), Nop::new())).unwrap();
        assert_eq!(done.results, (os(libc::EBADF), Ok(())));
    });
}

#[test]
fn a_limited_operation_that_is_skipped_is_skipped_not_timed_out() {
    each_engine(|_| {
        let (bad, mut buf) = (write_only(), [0u8; 4]);
        let tail = (sleep(NEVER).timeout(SOON).link(), Nop::new().timeout(SOON));
        let done = aio::complete((Read::new(&bad, &mut buf).link(), tail.0, tail.1)).unwrap();
        assert_eq!(done.results, (os(libc::EBADF), Err(Error::Skipped), Err(Error::Skipped)));
    });
}

#[test]
fn the_clock_starts_with_the_operation_not_with_its_chain() {
    each_engine(|_| {
        let ((a, b), mut buf) = (UnixStream::pair().unwrap(), [0u8; 4]);
        (&b).write_all(b"hey").unwrap();
        let (head, limit) = (Duration::from_millis(60), Duration::from_millis(40));
        let ten = Duration::from_millis(2);
        let recv = Recv::new(&a, &mut buf).timeout(limit);
        let done = aio::complete((sleep(head).link(), sleep(ten).timeout(limit).link(), recv)).unwrap();
        assert_eq!(done.results, (Ok(()), Ok(()), Ok(3)));
    });
}

#[test]
fn an_expired_standalone_timeout_is_a_success_and_breaks_no_chain() {
    each_engine(|_| {
        let boot = sleep(SOON).clock(Clock::Boot);
        let done = aio::complete((sleep(SOON).link(), boot.link(), Nop::new())).unwrap();
        assert_eq!((done.results, done.errors), ((Ok(()), Ok(()), Ok(())), 0));
    });
}

#[test]
fn a_result_beats_a_timeout() {
    each_engine(|_| {
        let ((a, b), mut buf) = (UnixStream::pair().unwrap(), [0u8; 8]);
        (&b).write_all(b"hey").unwrap();
        let all = Recv::new(&a, &mut buf).flags(RecvFlags::WAITALL);
        let done = aio::complete(all.timeout(SOON)).unwrap();
        assert_eq!((done.results, done.errors), (Ok(3), 0));
        assert_eq!(&buf[..3], b"hey");
    });
}

#[test]
fn a_result_that_beats_a_timeout_still_falls_short() {
    each_engine(|_| {
        let ((a, b), mut x, mut y) = (UnixStream::pair().unwrap(), [0u8; 8], [0u8; 8]);
        (&b).write_all(b"hey").unwrap();
        let all = Recv::new(&a, &mut x).flags(RecvFlags::WAITALL);
        let done = aio::complete((all.timeout(SOON).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(3), Err(Error::Skipped)));
        (&b).write_all(b"you").unwrap();
        let all = Recv::new(&a, &mut y).flags(RecvFlags::WAITALL);
        let done = aio::complete((all.timeout(SOON).hard_link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(3), Ok(())));
    });
}

#[test]
fn a_zero_limit_gives_one_attempt() {
    each_engine(|_| {
        let ((a, b), mut buf) = (UnixStream::pair().unwrap(), [0u8; 4]);
        assert_eq!(aio::single(Recv::new(&a, &mut buf).timeout(Duration::ZERO)), Err(Error::TimedOut));
        (&b).write_all(b"hey").unwrap();
        assert_eq!(aio::single(Recv::new(&a, &mut buf).timeout(Duration::ZERO)), Ok(3));
        assert_eq!(aio::single(sleep(NEVER).timeout(Duration::ZERO)), Err(Error::TimedOut));
    });
}

#[test]
fn an_enormous_limit_is_no_limit() {
    each_engine(|_| {
        let ((a, b), mut buf) = (UnixStream::pair().unwrap(), [0u8; 4]);
        let recv = Recv::new(&a, &mut buf).timeout(Duration::MAX);
        let chain = (sleep(SOON).timeout(Duration::MAX).link(), Send::new(&b, b"hey").timeout(Duration::MAX));
        assert_eq!(aio::multi((recv, chain)), Ok((3, ((), 3))));
    });
}

#[test]
fn of_nested_limits_the_shortest_counts() {
    each_engine(|_| {
        let ((output, _input), mut x, mut y) = (pipe(), [0u8; 4], [0u8; 4]);
        let inner = Read::new(&output, &mut x).timeout(SOON).timeout(NEVER);
        let outer = Read::new(&output, &mut y).timeout(NEVER).timeout(SOON);
        let done = aio::complete((inner, outer)).unwrap();
        assert_eq!(done.results, (Err(Error::TimedOut), Err(Error::TimedOut)));
    });
}

#[test]
fn every_operation_has_its_own_limit() {
    each_engine(|_| {
        let ((output, input), mut x, mut y) = (pipe(), [0u8; 4], [0u8; 4]);
        let first = Read::new(&output, &mut x).timeout(SOON);
        let second = Read::new(&output, &mut y).timeout(NEVER);
        // Written only when the first has given up, so the second takes it.
        let done = aio::complete((first, second, sleep(10 * SOON).link(), Write::new(&input, b"two"))).unwrap();
        assert_eq!(done.results, (Err(Error::TimedOut), Ok(3), Ok(()), Ok(3)));
        assert_eq!(&y[..3], b"two");
    });
}

#[test]
fn limits_on_timeouts_by_other_clocks() {
    each_engine(|_| {
        for clock in [Clock::Monotonic, Clock::Boot, Clock::Realtime] {
            assert_eq!(aio::single(sleep(NEVER).clock(clock).timeout(SOON)), Err(Error::TimedOut));
            assert_eq!(aio::single(sleep(SOON).clock(clock).timeout(NEVER)), Ok(()));
            let done = aio::complete((sleep(NEVER).clock(clock).timeout(SOON).hard_link(), Nop::new())).unwrap();
            assert_eq!(done.results, (Err(Error::TimedOut), Ok(())), "{clock:?}");
        }
    });
}

#[test]
fn a_limited_poll_and_accept_time_out_too() {
    each_engine(|_| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let accept = Accept::new(&listener).timeout(SOON);
        let poll = Poll::new(&listener, PollEvents::IN).timeout(SOON);
        let done = aio::complete((accept, poll)).unwrap();
        assert!(matches!(done.results, (Err(Error::TimedOut), Err(Error::TimedOut))), "{done:?}");
    });
}

#[test]
fn the_last_operation_of_a_chain_may_time_out() {
    each_engine(|_| {
        let ((output, _input), mut buf) = (pipe(), [0u8; 4]);
        let done = aio::complete((Nop::new().link(), Read::new(&output, &mut buf).timeout(SOON))).unwrap();
        assert_eq!((done.results, done.errors), ((Ok(()), Err(Error::TimedOut)), 1));
    });
}

// The ring gave an error number of the kernel's own for these.
#[test]
fn a_splice_that_waits_can_time_out() {
    each_engine(|_| {
        let (a, _b) = UnixStream::pair().unwrap();
        let (output, input) = pipe();
        let file = file_with(b"");
        for _ in 0..20 {
            let socket = Splice::new(&a, &input, 100).timeout(Duration::from_millis(2));
            assert_eq!(aio::single(socket), Err(Error::TimedOut));
        }
        // Waiting for a pipe blocks a worker of the emulation, or the thread.
        if aio::stats().backend == Some(Backend::IoUring) {
            assert_eq!(
                aio::single(Splice::new(&output, &file, 100).timeout(Duration::from_millis(2))),
                Err(Error::TimedOut)
            );
        }
    });
}
