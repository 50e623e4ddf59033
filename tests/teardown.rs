//! The end of a runtime with tasks left.

mod common;

use aio::{
    Error,
    coro::{self, Builder, RuntimeEnded},
    op::*,
};
use common::*;
use std::{
    cell::{Cell, RefCell},
    net::TcpListener,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);
const CANCELED: aio::Result<()> = Err(Error::Canceled);

#[test]
fn what_is_left_at_the_end_is_cancelled() {
    each_engine(|engine| {
        let start = Instant::now();
        let ended = Rc::new(Cell::new(0));
        runtime(engine)
            .run(|| {
                for _ in 0..10 {
                    let (a, b) = UnixStream::pair().unwrap();
                    let ended = ended.clone();
                    coro::spawn(move || {
                        let _b = b;
                        assert_eq!(aio::single(Recv::new(&a, &mut [0u8; 8])), Err(Error::Canceled));
                        ended.set(ended.get() + 1);
                    });
                }
                coro::spawn(|| coro::sleep(NEVER));
            })
            .unwrap();
        assert_eq!(ended.get(), 10);
        assert!(start.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_thousand_parked_tasks_end_in_no_time() {
    each_engine(|engine| {
        let (start, drops) = (Instant::now(), Drops::default());
        runtime(engine)
            .run(|| {
                for i in 0..1_000 {
                    let one = drops.one();
                    coro::spawn(move || {
                        let _one = one;
                        assert_eq!(coro::park(i), CANCELED);
                    });
                }
            })
            .unwrap();
        assert_eq!(drops.count(), 1_000);
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn everything_that_can_be_cancelled_ends_within_seconds() {
    each_engine(|engine| {
        let (start, drops) = (Instant::now(), Drops::default());
        let run = || {
            let canceled = |wait: Box<dyn FnOnce() -> aio::Result<()>>| {
                let one = drops.one();
                coro::spawn(move || {
                    assert_eq!(wait(), CANCELED);
                    drop(one);
                });
            };
            for _ in 0..20 {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                canceled(Box::new(move || aio::single(Accept::new(&listener)).map(drop)));
                let (a, b) = UnixStream::pair().unwrap();
                canceled(Box::new(move || aio::single(Recv::new(&a, &mut [0u8; 8])).map(drop)));
                canceled(Box::new(move || aio::single(Poll::new(&b, PollEvents::IN)).map(drop)));
                let (output, input) = pipe();
                canceled(Box::new(move || {
                    let _input = input;
                    aio::single(Read::new(&output, &mut [0u8; 8])).map(drop)
                }));
                canceled(Box::new(|| coro::sleep(NEVER)));
                canceled(Box::new(|| coro::timeout(NEVER, || coro::scope(|s| s.spawn(|| coro::park(1)).wait()))));
                canceled(Box::new(|| coro::spawn(|| coro::sleep(NEVER)).wait()));
            }
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            canceled(Box::new(move || {
                let result = aio::single(ChildExit::new(&mut child)).map(drop);
                child.kill().unwrap();
                child.wait().unwrap();
                result
            }));
            coro::sleep(SOON).unwrap();
        };
        runtime(engine).run(run).unwrap();
        assert_eq!(drops.count(), 141);
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn tasks_that_clean_up_behind_a_shield_are_waited_for() {
    each_engine(|engine| {
        let ended = Rc::new(Cell::new(0));
        runtime(engine)
            .run(|| {
                for i in 0..20 {
                    let ended = ended.clone();
                    coro::spawn(move || {
                        assert_eq!(coro::sleep(NEVER), CANCELED);
                        coro::shield(|| {
                            let (a, b) = UnixStream::pair().unwrap();
                            let child = coro::spawn(|| coro::park(1));
                            coro::sleep(Duration::from_micros(100 * i)).unwrap();
                            assert_eq!(aio::multi((Send::new(&a, "bye"), Recv::new(&b, &mut [0u8; 8]))), Ok((3, 3)));
                            child.cancel();
                            assert_eq!(child.join().unwrap(), CANCELED);
                        });
                        ended.set(ended.get() + 1);
                    });
                }
            })
            .unwrap();
        assert_eq!(ended.get(), 20);
    });
}

#[test]
fn what_is_spawned_during_the_end_is_cancelled_too() {
    each_engine(|engine| {
        let log = Rc::new(RefCell::new(vec![]));
        let inner = log.clone();
        runtime(engine)
            .run(|| {
                coro::spawn(move || {
                    let first = coro::sleep(NEVER);
                    let later = Builder::new().later().spawn(|| ()).unwrap();
                    let log = inner.clone();
                    coro::spawn(move || {
                        let second = coro::sleep(NEVER);
                        log.borrow_mut().push(second);
                    });
                    let third = coro::shield(|| later.join()).map_or(Err(Error::Skipped), Ok);
                    inner.borrow_mut().extend([first, third]);
                });
            })
            .unwrap();
        let log = log.borrow();
        assert_eq!(log.len(), 3);
        assert!(log.contains(&Ok(())) || log.contains(&Err(Error::Skipped)));
        assert_eq!(log.iter().filter(|&&result| result == CANCELED).count(), 2);
    });
}

// New tasks were looked for only after a second, or when all had ended.
#[test]
fn what_is_spawned_during_the_end_does_not_hold_it_up() {
    fn heirs(left: u32) {
        assert_eq!(coro::sleep(NEVER), CANCELED);
        if left > 0 {
            coro::spawn(move || heirs(left - 1));
        }
    }
    each_backend(|backend| {
        let start = Instant::now();
        coro::Config::new().backend(backend).run(|| coro::spawn(|| heirs(5))).unwrap();
        assert!(start.elapsed() < Duration::from_secs(3), "{:?} for what takes microseconds", start.elapsed());
    });
}

#[test]
fn a_panic_of_the_root_ends_the_tasks_and_goes_on() {
    each_engine(|engine| {
        let drops = Drops::default();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            runtime(engine).run(|| {
                for _ in 0..10 {
                    let one = drops.one();
                    coro::spawn(move || {
                        let _one = one;
                        let (a, _b) = UnixStream::pair().unwrap();
                        assert_eq!(aio::single(Recv::new(&a, &mut [0u8; 8])), Err(Error::Canceled));
                        // It is not this task that panics.
                        coro::shield(|| coro::sleep(SOON)).unwrap();
                    });
                }
                panic!("the root's");
            })
        }));
        assert_eq!(unwound.map(|_| ()).unwrap_err().downcast_ref(), Some(&"the root's"));
        assert_eq!(drops.count(), 10);
        assert_eq!(coro::run(|| coro::spawn(|| 1).join().unwrap()), Ok(1), "the thread is free for another one");
    });
}

#[test]
fn a_task_that_panics_at_the_end_harms_nobody() {
    each_engine(|engine| {
        let (one, other) = runtime(engine)
            .run(|| {
                let panics = || {
                    assert_eq!(coro::sleep(NEVER), CANCELED);
                    panic!("at the end");
                };
                (coro::spawn(panics), coro::spawn(|| coro::sleep(NEVER)))
            })
            .unwrap();
        assert_eq!(one.join().map(|()| 0).unwrap_err().to_string(), "the task panicked: at the end");
        assert_eq!(other.join().unwrap(), CANCELED);
    });
}

#[test]
fn the_roots_value_may_be_anything_that_outlives_the_tasks() {
    each_engine(|engine| {
        let mut local = 5;
        let value = runtime(engine).run(|| {
            let local = &mut local;
            coro::scope(|s| {
                s.spawn(|| *local += 1);
            });
            local
        });
        *value.unwrap() += 1;
        assert_eq!(local, 7);
    });
}

#[test]
fn a_deadlock_is_reported_with_the_tasks_and_what_they_wait_for() {
    let name = "a_deadlock_is_reported_with_the_tasks_and_what_they_wait_for";
    let reports = stderr_of(name, || {
        coro::Config::new()
            .name("main")
            .run(|| {
                let one = Builder::new().name("philosopher").spawn(|| coro::park(12)).unwrap();
                let inner = Rc::new(one);
                let other = inner.clone();
                let two = Builder::new().name("friend").spawn(move || other.wait()).unwrap();
                assert_eq!(two.wait(), Err(Error::Deadlock));
                // The others are left alone: the root may know what to do.
                assert!(!two.is_finished());
                assert!(inner.task().wake_if(12));
                assert_eq!(two.join().unwrap(), Ok(()));
            })
            .unwrap();
    });
    for report in reports {
        for line in [
            "deadlock",
            "task 0 \"main\" waits for the end of task 2",
            "task 1 \"philosopher\" waits for being woken; its state is 12",
            "task 2 \"friend\" waits for the end of task 1",
        ] {
            assert!(report.contains(line), "{line:?} is not in\n{report}");
        }
    }
}

#[test]
fn a_deadlock_is_no_deadlock_while_somebody_outside_may_help() {
    each_runtime(|| {
        // A timer, a socket, a thread.
        assert_eq!(coro::timeout(SOON, || coro::park(1)), Err(Error::TimedOut));
        let (a, _b) = UnixStream::pair().unwrap();
        let waits = coro::spawn(move || coro::timeout(3 * SOON, || aio::single(Recv::new(&a, &mut [0u8; 1]))));
        assert_eq!(waits.wait(), Ok(()));
        let (remote, root) = (coro::remote().unwrap(), coro::current());
        let helper = std::thread::spawn(move || {
            std::thread::sleep(3 * SOON);
            remote.wake(root).unwrap();
        });
        assert_eq!(coro::park(2), Ok(()));
        helper.join().unwrap();
        // The last one that could have helped has gone while everybody waits.
        let remote = coro::remote().unwrap();
        let gone = std::thread::spawn(move || {
            std::thread::sleep(3 * SOON);
            drop(remote);
        });
        assert_eq!(coro::park(3), Err(Error::Deadlock));
        gone.join().unwrap();
    });
}

#[test]
fn a_deadlock_behind_shields_at_the_end_is_told_to_everybody() {
    each_engine(|engine| {
        let tasks = runtime(engine)
            .run(|| {
                let shielded = || coro::shield(|| coro::park(1));
                let other = coro::spawn(shielded);
                let joins = coro::spawn(move || coro::shield(|| other.wait()));
                [coro::spawn(shielded), joins]
            })
            .unwrap();
        assert!(tasks.iter().all(|task| task.is_finished()));
        let [parked, joins] = tasks.map(|task| task.join().unwrap());
        assert_eq!(parked, Err(Error::Deadlock));
        assert!(joins.is_ok() || joins == Err(Error::Deadlock));
    });
}

/// What this process has of the system.
#[cfg(target_os = "linux")]
fn possessions() -> (usize, usize, usize) {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    let mappings = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    (descriptors(), threads, mappings)
}

#[test]
#[cfg(target_os = "linux")]
fn fifty_runtimes_leave_nothing_behind() {
    in_own_process("fifty_runtimes_leave_nothing_behind", || {
        each_engine(|engine| {
            let one = || {
                runtime(engine)
                    .run(|| {
                        let remote = coro::remote().unwrap();
                        let inner = remote.clone();
                        coro::offload(move || drop(inner.spawn(|| coro::sleep(NEVER)))).unwrap();
                        for i in 0..30usize {
                            let size = if i % 2 == 0 { 64 << 10 } else { 128 << 10 };
                            let body = || aio::single(OpenAt::new("Cargo.toml")).and_then(|_file| coro::sleep(NEVER));
                            Builder::new().stack_size(size).spawn(body).unwrap();
                        }
                        let (a, _b) = UnixStream::pair().unwrap();
                        coro::spawn(move || coro::timeout(NEVER, || aio::single(Recv::new(&a, &mut [0u8; 1]))));
                        coro::sleep(SOON).unwrap();
                    })
                    .unwrap();
            };
            // Until the system's caches of stacks for threads, and of memory for each, are full.
            (0..60).for_each(|_| one());
            let before = possessions();
            (0..50).for_each(|_| one());
            // A joined thread is listed for a moment after its end.
            // One may have been so before, too.
            eventually("the threads have ended", || possessions().1 <= before.1);
            let after = possessions();
            assert_eq!(after.0, before.0, "{}: descriptors", engine.name);
            // The allocator takes some of its own for each thread, up to a limit that may not be reached yet. What
            // runtimes left behind would grow for ever.
            let mut mappings = vec![before.2, after.2];
            while mappings.len() < 6 && mappings[mappings.len() - 1] >= mappings[mappings.len() - 2] + 50 {
                (0..50).for_each(|_| one());
                mappings.push(possessions().2);
            }
            assert!(mappings.len() < 6, "{}: more mappings each time: {mappings:?}", engine.name);
        });
    });
}

#[test]
fn a_remote_of_a_runtime_that_has_ended_says_so() {
    each_engine(|engine| {
        let (remote, id) = runtime(engine).run(|| (coro::remote().unwrap(), coro::current())).unwrap();
        let dropped = std::sync::Arc::new(());
        let inner = dropped.clone();
        assert!(matches!(remote.spawn(move || drop(inner)), Err(RuntimeEnded)));
        assert_eq!(std::sync::Arc::strong_count(&dropped), 1, "the closure was dropped");
        assert_eq!(remote.wake(id), Err(RuntimeEnded));
        let again = remote.clone();
        assert!(std::thread::spawn(move || again.spawn(|| ()).is_err()).join().unwrap());
        // Inside another runtime it is not taken for that.
        runtime(engine).run(|| assert!(matches!(remote.spawn(|| ()), Err(RuntimeEnded)))).unwrap();
    });
}

#[test]
fn a_remote_is_refused_from_the_moment_that_the_root_has_returned() {
    each_engine(|engine| {
        let refused = runtime(engine)
            .run(|| {
                let remote = coro::remote().unwrap();
                coro::spawn(move || {
                    assert_eq!(coro::sleep(NEVER), CANCELED);
                    remote.spawn(|| ()).is_err()
                })
            })
            .unwrap();
        assert!(refused.join().unwrap());
    });
}

// A wake-up from another thread was refused once the runtime had begun to end.
#[test]
fn a_wait_for_another_runtime_behind_a_shield_is_waited_for_at_the_end() {
    in_own_process("a_wait_for_another_runtime_behind_a_shield_is_waited_for_at_the_end", || {
        die_after(15);
        each_backend(|backend| {
            let config = coro::Config::new().backend(backend);
            let (give, take) = std::sync::mpsc::channel();
            let (over, ended) = std::sync::mpsc::channel::<()>();
            let there = config.clone();
            let other = std::thread::spawn(move || {
                there
                    .run(|| {
                        give.send(coro::remote().unwrap()).unwrap();
                        coro::offload(move || _ = ended.recv()).unwrap();
                    })
                    .unwrap();
            });
            let remote = take.recv().unwrap();
            let task = config
                .run(|| {
                    coro::spawn(move || {
                        coro::shield(|| remote.spawn(|| coro::sleep(20 * SOON)).unwrap().join().unwrap())
                    })
                })
                .unwrap();
            assert_eq!(task.join().unwrap(), Ok(()));
            over.send(()).unwrap();
            other.join().unwrap();
        });
    });
}
