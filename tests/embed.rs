//! A runtime inside somebody else's loop.

mod common;

use aio::{Backend, Error, coro, op::*};
use common::*;
use std::{
    cell::{Cell, RefCell},
    io::Write as _,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);

/// Whether the descriptor becomes readable within the time.
fn readable(fd: BorrowedFd<'_>, within: Duration) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    let count = unsafe { libc::poll(&mut poll, 1, i32::try_from(within.as_millis()).unwrap()) };
    count == 1 && poll.revents & libc::POLLIN != 0
}

/// Ticks until a condition holds, as a loop would: waits for the descriptor and the next deadline in between.
#[track_caller]
fn drive(ticker: &coro::Ticker<'_>, until: impl Fn() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < Duration::from_secs(10), "nothing more happens: {}", coro::dump());
        let tick = ticker.tick();
        if until() {
            return;
        }
        let most = tick.after().unwrap_or(Duration::from_secs(1));
        match ticker.as_fd() {
            // Rounded up, or it would spin before a deadline.
            Ok(fd) => _ = readable(fd, most + SOON),
            Err(_) => thread::sleep(most.min(SOON)),
        }
    }
}

#[track_caller]
fn each_embedded(test: impl Fn(&coro::Ticker<'_>)) {
    each_engine(|engine| runtime(engine).embed(|ticker| test(ticker)).unwrap());
}

#[test]
fn ticks_drive_tasks_timers_and_sockets() {
    each_embedded(|ticker| {
        let (a, b) = UnixStream::pair().unwrap();
        let ended = Rc::new(Cell::new(0));
        for i in 0..10 {
            let ended = ended.clone();
            coro::spawn(move || {
                coro::sleep(Duration::from_micros(i * 300)).unwrap();
                coro::yield_now().unwrap();
                ended.set(ended.get() + 1);
            });
        }
        let echo = coro::spawn(move || {
            let mut buffer = [0u8; 8];
            let n = aio::single(Recv::new(&a, &mut buffer)).unwrap();
            aio::single(Send::new(&a, &buffer[..n])).unwrap();
        });
        let talk = coro::spawn(move || {
            coro::sleep(SOON).unwrap();
            aio::single(Send::new(&b, "hello")).unwrap();
            aio::single(Recv::new(&b, &mut [0u8; 8]))
        });
        drive(ticker, || ended.get() == 10 && echo.is_finished() && talk.is_finished());
        assert_eq!(talk.join().unwrap(), Ok(5));
        assert_eq!(ticker.tick().tasks, 0);
    });
}

#[test]
fn nothing_happens_between_ticks_and_a_tick_does_not_wait() {
    each_embedded(|ticker| {
        let task = coro::spawn(|| coro::sleep(SOON));
        assert_eq!(ticker.tick().tasks, 1);
        thread::sleep(3 * SOON);
        assert!(!task.is_finished());
        drive(ticker, || task.is_finished());
        let never = coro::spawn(|| coro::sleep(NEVER));
        let start = Instant::now();
        for _ in 0..10 {
            ticker.tick();
        }
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(!never.is_finished());
    });
}

#[test]
fn a_tick_tells_the_next_deadline() {
    each_embedded(|ticker| {
        assert_eq!((ticker.tick().at, ticker.tick().tasks), (None, 0));
        let start = Instant::now();
        let far = coro::spawn(|| coro::sleep(Duration::from_secs(1_000)));
        let after = ticker.tick().after().unwrap();
        // The wheel may look earlier than needed, never later.
        assert!(after <= Duration::from_secs(1_000), "{after:?}");
        let near = coro::spawn(|| coro::timeout(Duration::from_millis(50), || coro::park(1)));
        let at = ticker.tick().at.unwrap();
        assert!(at <= start + Duration::from_millis(50) + start.elapsed());
        drive(ticker, || near.is_finished());
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(near.join().unwrap(), Err(Error::TimedOut));
        // A ready task wants a tick at once.
        let yields = coro::spawn(|| while coro::yield_now().is_ok() {});
        assert!(ticker.tick().after().unwrap() <= SOON);
        far.cancel();
        yields.cancel();
        drive(ticker, || far.is_finished() && yields.is_finished());
        assert_eq!(ticker.tick().at, None);
    });
}

#[test]
fn the_descriptor_tells_when_a_socket_is_ready() {
    each_engine(|engine| {
        let test = |ticker: &coro::Ticker<'_>| {
            let Ok(fd) = ticker.as_fd() else {
                assert_eq!(engine.backend, Backend::Poll);
                return;
            };
            for _ in 0..3 {
                let (a, mut b) = UnixStream::pair().unwrap();
                let task = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
                for _ in 0..3 {
                    ticker.tick();
                }
                assert!(!readable(fd, 5 * SOON), "there is nothing to do");
                b.write_all(b"x").unwrap();
                assert!(readable(fd, Duration::from_secs(5)));
                drive(ticker, || task.is_finished());
                assert_eq!(task.join().unwrap(), Ok(1));
            }
        };
        runtime(engine).embed(test).unwrap();
    });
}

#[test]
fn the_descriptor_tells_when_another_thread_sends_something() {
    each_engine(|engine| {
        let test = |ticker: &coro::Ticker<'_>| {
            let remote = coro::remote().unwrap();
            let Ok(fd) = ticker.as_fd() else { return };
            for round in 0..5 {
                ticker.tick();
                ticker.tick();
                assert!(!readable(fd, 5 * SOON));
                let sender = remote.clone();
                let handle = thread::spawn(move || sender.spawn(move || round).unwrap()).join().unwrap();
                assert!(readable(fd, Duration::from_secs(5)), "round {round}");
                drive(ticker, || handle.is_finished());
                assert_eq!(handle.join().unwrap(), round);
            }
        };
        runtime(engine).embed(test).unwrap();
    });
}

/// Polls a descriptor while a thread does something that makes it readable; tells how long that took.
fn woken_by(fd: BorrowedFd<'_>, something: impl FnOnce() + std::marker::Send) -> Duration {
    thread::scope(|s| {
        let start = Instant::now();
        s.spawn(|| {
            thread::sleep(20 * SOON);
            something();
        });
        assert!(readable(fd, Duration::from_secs(4)));
        start.elapsed()
    })
}

// Work that a ring defers made its descriptor readable, and woke nobody who polled it already.
#[test]
fn one_who_waits_for_the_descriptor_already_is_woken() {
    let slow = RefCell::new(vec![]);
    each_engine(|engine| {
        let test = |ticker: &coro::Ticker<'_>| {
            let Ok(fd) = ticker.as_fd() else { return };
            let note = |what: &str, took: Duration| {
                if took > Duration::from_secs(2) {
                    slow.borrow_mut().push(format!("{}: {what} after {took:?}", engine.name));
                }
            };
            let (a, b) = UnixStream::pair().unwrap();
            let task = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
            ticker.tick();
            ticker.tick();
            note("a socket", woken_by(fd, || (&b).write_all(b"x").unwrap()));
            drive(ticker, || task.is_finished());
            let remote = coro::remote().unwrap();
            ticker.tick();
            ticker.tick();
            note("a Remote", woken_by(fd, || drop(remote.spawn(|| ()))));
        };
        runtime(engine).embed(test).unwrap();
    });
    let slow = slow.into_inner();
    assert!(slow.is_empty(), "not woken, but seen when the time was up: {slow:#?}");
}

#[test]
fn only_the_closure_may_tick() {
    each_embedded(|ticker| {
        coro::scope(|s| {
            let ticks = s.spawn(|| catch_unwind(AssertUnwindSafe(|| ticker.tick())).is_err());
            assert!(ticks.join().unwrap());
        });
    });
}

#[test]
fn the_closure_may_wait_as_any_root_and_what_is_left_is_ended() {
    each_engine(|engine| {
        let left = runtime(engine).embed(|ticker| {
            assert_eq!(coro::current().number(), 0);
            let left = coro::spawn(|| coro::sleep(NEVER));
            ticker.tick();
            assert_eq!(coro::spawn(|| coro::sleep(SOON)).join().unwrap(), Ok(()));
            assert_eq!(coro::timeout(SOON, || coro::park(1)), Err(Error::TimedOut));
            left
        });
        assert_eq!(left.unwrap().join().unwrap(), Err(Error::Canceled));
    });
}

#[test]
fn a_tick_runs_what_was_offloaded_without_workers() {
    each_backend(|backend| {
        let config = coro::Config::new().backend(backend).max_workers(0);
        config
            .embed(|ticker| {
                let task = coro::spawn(|| coro::offload(|| 5));
                drive(ticker, || task.is_finished());
                assert_eq!(task.join().unwrap(), Ok(5));
            })
            .unwrap();
    });
}
