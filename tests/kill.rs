//! Attacks: panics, races, signals, late results.

mod common;
#[path = "common/direct.rs"]
mod direct;

use aio::{Error, op::*, windowed};
use common::{
    NEVER, each_backend, each_backend_with, each_engine, fifo, fork, in_own_process, leaks_no_descriptor, open_writer,
    pipe,
};
use direct::*;
use std::{
    fs::File,
    io::Write as _,
    mem::MaybeUninit,
    os::{fd::AsRawFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

#[test]
fn memory_that_is_freed_after_a_panic_is_not_written_any_more() {
    each_backend(|_| {
        let dir = tempfile::tempdir().unwrap();
        let file = large_file(&dir, 64);
        for round in 0..20 {
            let mut blocks: Vec<_> = (0..16).map(|_| Aligned::new()).collect();
            let reads =
                blocks.iter_mut().enumerate().map(|(i, block)| Read::new(&file, block.bytes()).at((i * BLOCK) as u64));
            let then = std::iter::once(()).map(|()| panic!("in flight"));
            let units = reads.map(Some).chain(then).map(|read| read.expect("only the panic ends it"));
            assert!(catch_unwind(AssertUnwindSafe(|| aio::multi(windowed(units, 64)))).is_err());
            // The allocator hands the same memory out again; a read that is still in flight would write to it.
            drop(blocks);
            let mut fresh: Vec<_> = (0..16).map(|_| Aligned::new()).collect();
            std::thread::sleep(Duration::from_millis(1));
            assert!(fresh.iter_mut().all(|block| block.bytes().iter().all(|&byte| byte == 0)), "round {round}");
        }
    });
}

#[test]
fn a_timeout_that_races_a_completion_loses_no_byte() {
    each_backend(|backend| {
        let (a, b) = UnixStream::pair().unwrap();
        b.set_nonblocking(true).unwrap();
        let (mut taken, mut sent, mut expired) = (Vec::new(), 0u32, 0);
        for round in 0..6_000u32 {
            let mut buf = [0u8; 4];
            // From far too early to far too late for the byte that is sent meanwhile.
            let limit = Duration::from_nanos(u64::from(round % 120) * 500);
            let send = Timeout::after(Duration::from_micros(30));
            let value = sent.to_ne_bytes();
            let done = aio::complete((
                Recv::new(&a, &mut buf).flags(RecvFlags::WAITALL).timeout(limit),
                send.link(),
                Send::new(&b, &value),
            ));
            let (got, _, put) = done.unwrap().results;
            assert_eq!(put, Ok(4));
            sent += 1;
            match got {
                Ok(4) => taken.push(u32::from_ne_bytes(buf)),
                Err(Error::TimedOut) => expired += 1,
                other => panic!("{backend}, round {round}: {other:?}"),
            }
        }
        while let Ok(len) = aio::single(Recv::new(&a, vec![0u8; 4]).nonblocking()) {
            taken.push(u32::from_ne_bytes(len.1.try_into().unwrap()));
        }
        assert!(taken.iter().copied().eq(0..sent), "{backend}: {} of {sent}", taken.len());
        assert!(expired > 0);
    });
}

#[test]
fn a_pipe_write_that_races_its_timeout_is_done_or_not_done() {
    each_backend(|backend| {
        let (output, input) = pipe();
        let filling = vec![b'.'; 65536];
        let mut lens = [0u32; 2];
        for round in 0..5_000u64 {
            assert_eq!(aio::single(Write::new(&input, &filling)), Ok(65536));
            let mut drained = vec![0u8; 65536];
            let limit = Duration::from_nanos(round % 100 * 400);
            let wait = Timeout::after(Duration::from_micros(15));
            let done = aio::complete((
                Write::new(&input, b"x").timeout(limit),
                wait.link(),
                Read::new(&output, &mut drained[..]),
            ));
            let (write, _, read) = done.unwrap().results;
            let mut rest = [0u8; 2];
            let left = aio::single(Read::new(&output, &mut rest).nonblocking()).unwrap_or(0);
            let total = read.unwrap() + left;
            match write {
                Ok(1) => assert_eq!(total, 65537, "{backend}, round {round}"),
                Err(Error::TimedOut) => assert_eq!(total, 65536, "{backend}, round {round}"),
                other => panic!("{backend}, round {round}: {other:?}"),
            }
            lens[usize::from(write.is_ok())] += 1;
        }
        assert!(lens[0] > 0, "{backend}: some expire");
    });
}

extern "C" fn nothing(_: libc::c_int) {}

/// A signal every 200 µs that interrupts system calls.
fn signal_storm() {
    // SAFETY: the handler does nothing, hence is async-signal-safe; the structures are locals.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
        // The watchdogs and the harness are not to take the signals.
        let tick = libc::timeval { tv_sec: 0, tv_usec: 200 };
        let timer = libc::itimerval { it_interval: tick, it_value: tick };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()), 0);
    }
}

fn interrupted_work() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = UnixStream::pair().unwrap();
    for round in 0..10u32 {
        let (file, (output, input)) = (common::file_with(&[7; 4096]), pipe());
        let (mut x, mut y, mut z) = ([0u8; 4096], [0u8; 4], [0u8; 2]);
        let new = dir.path().join("f");
        let done = aio::complete((
            (Read::new(&file, &mut x).at(0), Fsync::new(&file).data_only(), Statx::of(&file)),
            Recv::new(&a, &mut y).flags(RecvFlags::WAITALL).timeout(NEVER),
            (Timeout::after(Duration::from_millis(1)).link(), Send::new(&b, b"ab").link(), Nop::new()),
            (Timeout::after(Duration::from_micros(100)).link(), Send::new(&b, b"cd").link(), Write::new(&input, b"!!")),
            Read::new(&output, &mut z),
            (OpenAt::new(&new).flags(OpenFlags::CREATE | OpenFlags::WRITE_ONLY).link(), UnlinkAt::new(&new)),
        ));
        let done = done.unwrap();
        assert_eq!(done.errors, 0, "round {round}: {:?}", done.results);
    }
}

#[test]
fn a_storm_of_signals_disturbs_nothing() {
    in_own_process("a_storm_of_signals_disturbs_nothing", || {
        signal_storm();
        // Fresh engines, for their beginnings are interrupted too.
        for _ in 0..10 {
            each_backend(|_| interrupted_work());
        }
        each_backend_with(|config| config.max_workers(0), |_| interrupted_work());
    });
}

#[test]
fn an_open_that_waits_is_not_interrupted_by_signals() {
    in_own_process("an_open_that_waits_is_not_interrupted_by_signals", || {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(&dir);
        each_backend(|backend| {
            // SAFETY: identifies the calling thread.
            let waiting = unsafe { libc::pthread_self() };
            let over = AtomicBool::new(false);
            signal_storm();
            std::thread::scope(|s| {
                s.spawn(|| {
                    for _ in 0..20 {
                        std::thread::sleep(Duration::from_millis(1));
                        // SAFETY: the thread waits for the end of this scope, so it exists.
                        unsafe { libc::pthread_kill(waiting, libc::SIGALRM) };
                    }
                    drop(open_writer(&path, || over.load(Relaxed)));
                });
                let opened = aio::single(OpenAt::new(&path));
                over.store(true, Relaxed);
                assert!(opened.is_ok(), "{backend}: {opened:?}");
            });
        });
    });
}

#[test]
fn descriptors_that_arrive_too_late_are_closed() {
    in_own_process("descriptors_that_arrive_too_late_are_closed", || {
        each_backend(|_| {
            leaks_no_descriptor(|| {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                for round in 0..60u64 {
                    let limit = Duration::from_micros(round * 3);
                    let client = std::net::TcpStream::connect(address).unwrap();
                    let _ = aio::complete((
                        Accept::new(&listener).timeout(limit),
                        OpenAt::new("Cargo.toml").timeout(limit),
                    ));
                    let _ = aio::single(Accept::new(&listener).nonblocking());
                    let opens = (0..12).map(|i| {
                        assert!(i < 11, "while opens are in flight");
                        (OpenAt::new("Cargo.toml").timeout(limit), Accept::new(&listener))
                    });
                    let _ = catch_unwind(AssertUnwindSafe(|| aio::multi(windowed(opens, 16))));
                    drop(client);
                }
            });
        });
    });
}

#[test]
fn a_close_that_fails_half_way_never_hits_another_file() {
    each_backend(|_| {
        for _ in 0..200 {
            let ((_keep, unreadable), mut buf) = (pipe(), [0u8; 1]);
            let victim = File::open("Cargo.toml").unwrap();
            let number = victim.as_raw_fd();
            let done = aio::complete((Read::new(&unreadable, &mut buf).link(), Close::new(victim))).unwrap();
            assert_eq!(done.results.1, Err(Error::Skipped));
            // The number was given back exactly once; whoever has it now keeps it.
            let after = File::open("Cargo.toml").unwrap();
            assert!(after.metadata().is_ok(), "{number}");
        }
    });
}

#[test]
fn a_chain_cut_short_leaves_uninitialised_memory_alone() {
    each_backend(|_| {
        let ((a, b), mut raw) = (UnixStream::pair().unwrap(), [MaybeUninit::uninit(); 32]);
        (&b).write_all(b"abc").unwrap();
        let recv = Recv::new(&a, &mut raw[..]).flags(RecvFlags::WAITALL).timeout(Duration::from_millis(3));
        let (filled, rest) = aio::single(recv).unwrap();
        assert_eq!((&*filled, rest.len()), (&b"abc"[..], 29));
    });
}

#[test]
fn a_process_may_exit_in_an_iterator_while_something_is_in_flight() {
    in_own_process("a_process_may_exit_in_an_iterator_while_something_is_in_flight", || {
        each_engine(|engine| {
            let child = fork(|| {
                // SAFETY: ends the child if it waits for the read, which nothing ends.
                unsafe { libc::alarm(60) };
                let ((output, _input), mut buf) = (pipe(), [0u8; 4]);
                let mut read = Some(Read::new(&output, &mut buf));
                let units = std::iter::from_fn(|| Some(read.take().unwrap_or_else(|| std::process::exit(7))));
                let _ = aio::complete(windowed(units, 2));
            });
            assert_eq!(child.wait(), 7, "{}: exit code of the child, or its signal", engine.name);
        });
    });
}
