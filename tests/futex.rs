//! Waiting for a word of memory.
#![cfg(target_os = "linux")]

mod common;

use aio::{Backend, Config, Error, Queue, Service, coro, op::*, queue::Done};
use common::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(10);

/// Runs a test on each engine that can wait for a word. Old rings cannot, nor the emulation on kernels before 5.16.
#[track_caller]
fn each_capable(test: impl Fn(&Engine)) {
    each_engine(|engine| {
        if is_capable(engine) {
            test(engine);
        }
    });
}

fn is_capable(engine: &Engine) -> bool {
    engine.config.run(is_supported).unwrap()
}

fn is_supported() -> bool {
    !matches!(aio::single(FutexWait::new(&AtomicU32::new(0), 1)), Err(Error::Unsupported(_)))
}

/// Wakes one who waits, as soon as there is one.
fn wake_one(word: &AtomicU32) {
    while aio::single(FutexWake::new(word, 1)) == Ok(0) {
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn engines_without_it_say_so() {
    each_engine(|engine| {
        let word = AtomicU32::new(0);
        let result = aio::single(FutexWait::new(&word, 1));
        let row = Backend::probe().operation("FutexWait").unwrap();
        if !is_capable(engine) {
            assert!(matches!(result, Err(Error::Unsupported(_))), "{result:?}");
            // As new as this system is, an engine that pretends nothing can do what the probe says.
            match engine.backend {
                Backend::IoUring => assert!(engine.name != "io_uring" || row.io_uring == Some(Service::Unsupported)),
                _ => assert_eq!(row.emulation, Service::Unsupported),
            }
            let done = aio::complete((FutexWait::new(&word, 0).link(), Nop::new())).unwrap();
            assert!(matches!(done.results, (Err(Error::Unsupported(_)), Err(Error::Skipped))));
        } else {
            assert_eq!(result, os(libc::EAGAIN), "the word holds another value");
            assert_ne!(engine.name, "io_uring of 5.11");
            let name = if engine.backend == Backend::IoUring { "ring" } else { "worker" };
            let service = if name == "ring" { row.io_uring.unwrap() } else { row.emulation };
            assert!(matches!(service, Service::Ring | Service::Worker));
            assert_eq!(service.to_string(), name);
        }
        // Waking works everywhere.
        assert_eq!(aio::single(FutexWake::new(&word, 1)), Ok(0));
        assert_eq!(aio::single(FutexWake::new(&word, 0)), Ok(0));
        assert_eq!(aio::single(FutexWake::all(&word)), Ok(0));
        assert_eq!(aio::single(FutexWake::new(&word, u32::MAX)), Ok(0));
    });
}

#[test]
fn another_thread_wakes() {
    each_capable(|_| {
        for limit in [None, Some(NEVER)] {
            let word = AtomicU32::new(7);
            thread::scope(|s| {
                s.spawn(|| wake_one(&word));
                match limit {
                    None => aio::single(FutexWait::new(&word, 7)),
                    Some(limit) => aio::single(FutexWait::new(&word, 7).timeout(limit)),
                }
                .unwrap();
            });
        }
    });
}

#[test]
fn the_standard_librarys_kind_of_protocol_works() {
    each_capable(|_| {
        let ready = AtomicU32::new(0);
        thread::scope(|s| {
            s.spawn(|| {
                thread::sleep(SOON);
                ready.store(1, Ordering::Release);
                aio::single(FutexWake::all(&ready)).unwrap();
            });
            while ready.load(Ordering::Acquire) == 0 {
                match aio::single(FutexWait::new(&ready, 0)) {
                    Ok(()) => {}
                    Err(error) => assert_eq!(Err(error), os::<()>(libc::EAGAIN)),
                }
            }
        });
    });
}

#[test]
fn limits_cancels_and_links() {
    each_capable(|_| {
        let word = AtomicU32::new(0);
        let start = Instant::now();
        assert_eq!(aio::single(FutexWait::new(&word, 0).timeout(SOON)), Err(Error::TimedOut));
        assert!(start.elapsed() >= SOON);
        let done = aio::complete((FutexWait::new(&word, 0).timeout(SOON).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Err(Error::TimedOut), Err(Error::Skipped)));
        let done = aio::complete((FutexWait::new(&word, 0).timeout(SOON).hard_link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Err(Error::TimedOut), Ok(())));
        let done = aio::complete((FutexWait::new(&word, 1).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (os(libc::EAGAIN), Err(Error::Skipped)));
        // The wait is over before the other operation has run, or it is not; this is after it has begun for sure.
        thread::scope(|s| {
            s.spawn(|| wake_one(&word));
            let done = aio::complete((FutexWait::new(&word, 0).link(), FutexWake::new(&word, 1).link(), Nop::new()));
            assert_eq!(done.unwrap().results, (Ok(()), Ok(0), Ok(())));
        });
    });
}

#[test]
fn a_wake_that_races_a_limit_is_lost_to_nobody() {
    each_capable(|_| {
        let word = AtomicU32::new(0);
        for round in 0..50u64 {
            thread::scope(|s| {
                let waker = s.spawn(|| {
                    thread::sleep(Duration::from_micros(100 + 20 * (round % 20)));
                    aio::single(FutexWake::new(&word, 1)).unwrap()
                });
                let result = aio::single(FutexWait::new(&word, 0).timeout(Duration::from_micros(200)));
                match (waker.join().unwrap(), result) {
                    (1, Ok(())) | (0, Err(Error::TimedOut)) => {}
                    other => panic!("{other:?}"),
                }
            });
        }
    });
}

#[test]
fn queues_hold_words_and_cancel() {
    each_capable(|engine| {
        let word = Arc::new(AtomicU32::new(3));
        let queue = Queue::<Done<FutexWait<Arc<AtomicU32>>>>::with_config(64, engine.config).unwrap();
        let tokens: Vec<_> =
            (0..50).map(|_| queue.submit(FutexWait::new(word.clone(), 3), |done| done).unwrap()).collect();
        assert!(queue.wait_until(Instant::now() + SOON).unwrap().next().is_none());
        queue.cancel(tokens[7]).unwrap();
        let (token, done) = queue.wait(1).unwrap().next().unwrap();
        assert_eq!((token, done.result), (tokens[7], Err(Error::Canceled)));
        assert!(Arc::ptr_eq(&done.op.into_word(), &word));
        let mut woken = 0;
        while woken < 29 {
            woken += aio::single(FutexWake::new(&*word, 29 - woken)).unwrap();
        }
        let mut ended = 0;
        while ended < 29 {
            ended += queue.wait(1).unwrap().map(|(_, done)| assert_eq!(done.result, Ok(()))).count();
        }
        assert!(queue.poll().unwrap().next().is_none());
        // Dropping it ends the others.
        assert_eq!(queue.len(), 20);
        drop(queue);
        assert_eq!(Arc::strong_count(&word), 1);
        assert_eq!(aio::single(FutexWake::all(&*word)), Ok(0));
    });
}

#[test]
fn tasks_wait_for_one_another_by_words() {
    for engine in engines().into_iter().filter(is_capable) {
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        let wait = |word: &AtomicU32, value| match aio::single(FutexWait::new(word, value)) {
            Ok(()) => {}
            Err(error) => assert_eq!(Err(error), os::<()>(libc::EAGAIN)),
        };
        let run = || {
            coro::scope(|s| {
                s.spawn(|| {
                    for round in 0..20 {
                        while words[0].load(Ordering::Acquire) == round {
                            wait(&words[0], round);
                        }
                        words[1].fetch_add(1, Ordering::Release);
                        aio::single(FutexWake::all(&words[1])).unwrap();
                    }
                });
                for round in 0..20 {
                    words[0].fetch_add(1, Ordering::Release);
                    aio::single(FutexWake::all(&words[0])).unwrap();
                    while words[1].load(Ordering::Acquire) == round {
                        wait(&words[1], round);
                    }
                }
                let forever = s.spawn(|| aio::single(FutexWait::new(&words[0], 20)));
                coro::sleep(SOON).unwrap();
                forever.cancel();
                assert_eq!(forever.join().unwrap(), Err(Error::Canceled));
            });
        };
        runtime(&engine).run(run).unwrap();
    }
}

#[test]
fn waits_do_not_take_the_workers_of_others() {
    let config = Config::new().backend(Backend::Epoll).max_workers(1);
    if !config.run(is_supported).unwrap_or(false) {
        return;
    }
    let word = Arc::new(AtomicU32::new(0));
    let queue = Queue::<bool>::with_config(8, config).unwrap();
    for _ in 0..4 {
        queue.submit(FutexWait::new(word.clone(), 0), |_| false).unwrap();
    }
    queue.submit(Fsync::new(file_with(b"x")), |done| done.result.is_ok()).unwrap();
    assert!(queue.wait(1).unwrap().next().unwrap().1, "the disk is served");
}
