//! Tasks: starting, joining, switching, ending.

mod common;

use aio::{Error, coro, op::*};
use common::*;
use std::{
    cell::RefCell,
    os::unix::net::UnixStream,
    rc::Rc,
    time::{Duration, Instant},
};

/// Runs a test as the root of a runtime, once on each engine.
#[track_caller]
fn each_runtime(test: impl Fn()) {
    each_engine(|engine| coro::Config::new().engine(engine.config).run(&test).unwrap());
}

#[test]
fn a_task_runs_to_its_first_wait_when_it_is_spawned() {
    each_runtime(|| {
        let log = Rc::new(RefCell::new(vec![]));
        let inner = log.clone();
        let task = coro::spawn(move || {
            inner.borrow_mut().push(1);
            coro::yield_now().unwrap();
            inner.borrow_mut().push(3);
            7
        });
        log.borrow_mut().push(2);
        assert_eq!(task.join().unwrap(), 7);
        assert_eq!(*log.borrow(), [1, 2, 3]);
    });
}

#[test]
fn operations_of_tasks_overlap() {
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let (c, d) = UnixStream::pair().unwrap();
        coro::scope(|s| {
            let echo = s.spawn(|| {
                let mut buffer = [0; 16];
                let n = aio::single(Recv::new(&b, &mut buffer)).unwrap();
                aio::single(Send::new(&c, &buffer[..n])).unwrap()
            });
            let mut buffer = [0; 16];
            let (sent, n) = aio::multi((Send::new(&a, "hello"), Recv::new(&d, &mut buffer))).unwrap();
            assert_eq!((sent, &buffer[..n]), (5, &b"hello"[..]));
            assert_eq!(echo.join().unwrap(), 5);
        });
    });
}

#[test]
fn five_hundred_tasks_sleep_a_hundred_times() {
    each_runtime(|| {
        let tasks: Vec<_> = (0..500)
            .map(|i| {
                coro::spawn(move || {
                    for round in 0..100 {
                        coro::sleep(Duration::from_micros((i * 7 + round * 3) % 100)).unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
    });
}

#[test]
fn a_cancelled_task_gets_an_error_and_ends() {
    each_runtime(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let task = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
        coro::yield_now().unwrap();
        task.cancel();
        assert_eq!(task.join().unwrap(), Err(Error::Canceled));
    });
}

#[test]
fn what_is_left_at_the_end_is_cancelled() {
    each_engine(|engine| {
        let start = Instant::now();
        let ended = Rc::new(RefCell::new(0));
        coro::Config::new()
            .engine(engine.config)
            .run(|| {
                for _ in 0..10 {
                    let (a, b) = UnixStream::pair().unwrap();
                    let ended = ended.clone();
                    coro::spawn(move || {
                        let _b = b;
                        assert_eq!(aio::single(Recv::new(&a, &mut [0u8; 8])), Err(Error::Canceled));
                        *ended.borrow_mut() += 1;
                    });
                }
                coro::spawn(|| coro::sleep(NEVER));
            })
            .unwrap();
        assert_eq!(*ended.borrow(), 10);
        assert!(start.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_timeout_ends_what_is_inside() {
    each_runtime(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let late = coro::timeout(Duration::from_millis(3), || aio::single(Recv::new(&a, &mut [0u8; 8])));
        assert_eq!(late, Err(Error::TimedOut));
        assert_eq!(coro::sleep(Duration::from_millis(1)), Ok(()));
    });
}

#[test]
fn a_deadlock_is_an_error() {
    each_runtime(|| {
        assert_eq!(coro::park(1), Err(Error::Deadlock));
    });
}
