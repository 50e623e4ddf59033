//! Pipes: making them, and copying from one into another.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/net.rs"]
mod net;

use aio::{Error, Queue, op::*, queue::Done};
use common::*;
use net::closes_on_exec;
use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

const SOON: Duration = Duration::from_millis(5);

fn write(to: &OwnedFd, bytes: &[u8]) {
    assert_eq!(aio::single(Write::new(to, bytes)), Ok(bytes.len()));
}

fn read(from: &OwnedFd) -> Vec<u8> {
    let (len, mut bytes) = aio::single(Read::new(from, vec![0; 100_000])).unwrap();
    bytes.truncate(len);
    bytes
}

#[test]
fn a_pipe_has_two_ends_that_are_closed_on_exec() {
    each_engine(|_| {
        let (output, input) = aio::single(Pipe::new()).unwrap();
        assert!(closes_on_exec(&output) && closes_on_exec(&input));
        write(&input, b"through");
        assert_eq!(read(&output), b"through");
        drop(input);
        assert_eq!(read(&output), b"");
        let (a, b, ()) = aio::multi((Pipe::new().link(), Pipe::default().timeout(NEVER).link(), Nop::new())).unwrap();
        write(&b.1, b"b");
        write(&a.1, b"a");
        assert_eq!((read(&a.0), read(&b.0)), (b"a".to_vec(), b"b".to_vec()));
        let skipped = aio::complete((Read::new(&write_only(), &mut [0; 4]).link(), Pipe::new())).unwrap();
        assert_eq!(skipped.results.1.unwrap_err(), Error::Skipped);
    });
}

#[test]
fn pipes_that_nobody_takes_are_closed() {
    in_own_process("pipes_that_nobody_takes_are_closed", || {
        for engine in engines() {
            leaks_no_descriptor(|| {
                let run = || {
                    // Results that are dropped with the others, because one has failed.
                    let (_, input) = pipe();
                    assert!(aio::multi((Pipe::new(), Read::new(&input, &mut [0; 4]))).is_err());
                    // An iterator that panics when some are in flight.
                    let broken = catch_unwind(AssertUnwindSafe(|| {
                        let pipes = (0..9).map(|i| if i < 5 { Pipe::new() } else { panic!("no more") });
                        let _ = aio::complete(aio::windowed(pipes, 9).for_each(|_, result| drop(result)));
                    }));
                    assert!(broken.is_err());
                    // A descriptor that panics when some of its batch were submitted.
                    struct Panics;
                    impl std::os::fd::AsFd for Panics {
                        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                            panic!("no descriptor")
                        }
                    }
                    let mut bytes = [0; 4];
                    let batch =
                        AssertUnwindSafe((Pipe::new(), Pipe::new().timeout(NEVER), Read::new(Panics, &mut bytes)));
                    assert!(catch_unwind(|| aio::complete({ batch }.0).map(drop)).is_err());
                    // A queue that is dropped before it has delivered.
                    let queue = Queue::<()>::with_config(4, engine.config).unwrap();
                    for _ in 0..3 {
                        queue.submit(Pipe::new(), |_| ()).unwrap();
                    }
                };
                engine.config.run(run).unwrap();
            });
        }
    });
}

#[test]
fn tee_copies_and_leaves_the_bytes_where_they_are() {
    each_engine(|_| {
        let ((from, input), (copy, to)) = (pipe(), pipe());
        write(&input, b"0123456789");
        assert_eq!(aio::single(Tee::new(&from, &to, 100)), Ok(10));
        assert_eq!(aio::single(Tee::new(&from, &to, 4)), Ok(4));
        assert_eq!((read(&copy), read(&from)), (b"01234567890123".to_vec(), b"0123456789".to_vec()));
        assert_eq!(aio::single(Tee::new(&from, &to, 0)), Ok(0));
        // The end of the input.
        drop(input);
        assert_eq!(aio::single(Tee::new(&from, &to, 1)), Ok(0));
    });
}

#[test]
fn a_short_tee_breaks_a_soft_link() {
    each_engine(|_| {
        let ((from, input), (_copy, to)) = (pipe(), pipe());
        write(&input, b"0123456789");
        let done = aio::complete((Tee::new(&from, &to, 100).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(10), Err(Error::Skipped)));
        let done = aio::complete((Tee::new(&from, &to, 10).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(10), Ok(())));
        let done = aio::complete((Tee::new(&from, &to, 100).hard_link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(10), Ok(())));
    });
}

#[test]
fn tee_refuses_what_is_no_pipe_and_does_not_wait_if_asked() {
    each_engine(|_| {
        let ((from, _input), (_copy, to), file) = (pipe(), pipe(), file_with(b"text"));
        assert_eq!(aio::single(Tee::new(&file, &to, 4)), os(libc::EINVAL));
        assert_eq!(aio::single(Tee::new(&from, &file, 4)), os(libc::EINVAL));
        assert_eq!(aio::single(Tee::new(&to, &to, 4)), os(libc::EBADF), "not open for reading");
        assert_eq!(aio::single(Tee::new(&from, &from, 4)), os(libc::EBADF), "not open for writing");
        assert_eq!(aio::single(Tee::new(&from, &to, 4).flags(SpliceFlags::NONBLOCK)), os(libc::EAGAIN));
        // SAFETY: such a high number is no descriptor's; it is not closed.
        let bad = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(1 << 30) });
        for len in [0, 4] {
            assert_eq!(aio::single(Tee::new(&*bad, &to, len)), os(libc::EBADF));
            assert_eq!(aio::single(Tee::new(&from, &*bad, len)), os(libc::EBADF));
        }
    });
}

#[test]
fn tee_waits_for_both_ends_and_can_be_ended() {
    each_engine(|engine| {
        let ((from, input), (copy, to)) = (pipe(), pipe());
        // For input.
        for _ in 0..5 {
            assert_eq!(aio::single(Tee::new(&from, &to, 4).timeout(SOON)), Err(Error::TimedOut));
        }
        let (len, (), sent) = aio::multi((
            Tee::new(&from, &to, 9).timeout(NEVER),
            Timeout::after(SOON).link(),
            Write::new(&input, "here"),
        ))
        .unwrap();
        assert_eq!((len, sent), (4, 4));
        assert_eq!(read(&copy), b"here");
        // For room. A pipe may hold one byte in each of its pages.
        while aio::single(Write::new(&to, &[7; 4096]).nonblocking()).is_ok() {}
        assert_eq!(aio::single(Tee::new(&from, &to, 4).flags(SpliceFlags::NONBLOCK)), os(libc::EAGAIN));
        assert_eq!(aio::single(Tee::new(&from, &to, 4).timeout(SOON)), Err(Error::TimedOut));
        let reader = thread::spawn(move || {
            thread::sleep(SOON);
            aio::single(Read::new(&copy, vec![0; 1 << 20])).unwrap();
            copy
        });
        assert_eq!(aio::single(Tee::new(&from, &to, 4)), Ok(4));
        drop(reader.join().unwrap());
        // Nobody reads the copy any more.
        assert_eq!(aio::single(Tee::new(&from, &to, 4)), os(libc::EPIPE));

        let queue = Queue::<Done<Tee<OwnedFd, OwnedFd>>>::with_config(2, engine.config).unwrap();
        let ((from, _input), (_copy, to)) = (pipe(), pipe());
        let numbers = (from.as_raw_fd(), to.as_raw_fd());
        let token = queue.submit(Tee::new(from, to, 4), |done| done).unwrap();
        assert!(queue.wait_until(std::time::Instant::now() + SOON).unwrap().next().is_none());
        queue.cancel(token).unwrap();
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1.result, Err(Error::Canceled));
        assert_ne!(numbers.0, numbers.1);
    });
}
