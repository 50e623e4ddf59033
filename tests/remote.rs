//! From other threads into a runtime.

mod common;

use aio::{
    Error,
    coro::{self, JoinError},
    op::*,
};
use common::*;
use std::{
    cell::Cell,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

const SOON: Duration = Duration::from_millis(1);

#[test]
fn a_hundred_thousand_tasks_from_four_threads_all_run() {
    const EACH: usize = 25_000;
    each_backend(|backend| {
        let seen: Arc<Vec<AtomicUsize>> = Arc::new((0..4 * EACH).map(|_| AtomicUsize::new(0)).collect());
        let config = coro::Config::new().backend(backend).stack_size(16 << 10);
        config
            .run(|| {
                let remote = coro::remote().unwrap();
                let (home, done) = (thread::current().id(), Arc::new(AtomicUsize::new(0)));
                let threads: Vec<_> = (0..4)
                    .map(|part| {
                        let (remote, seen, done) = (remote.clone(), seen.clone(), done.clone());
                        thread::spawn(move || {
                            for i in part * EACH..(part + 1) * EACH {
                                let (seen, done) = (seen.clone(), done.clone());
                                let task = move || {
                                    assert_eq!(thread::current().id(), home);
                                    seen[i].fetch_add(1, Ordering::Relaxed);
                                    done.fetch_add(1, Ordering::Relaxed);
                                    i
                                };
                                let handle = remote.spawn(task).unwrap();
                                // One in a thousand waits for its result, so that the runtime is idle now and then.
                                if i % 1_000 == 0 {
                                    assert_eq!(handle.join().unwrap(), i);
                                }
                            }
                        })
                    })
                    .collect();
                drop(remote);
                // Everything that is still to come comes from the threads.
                while done.load(Ordering::Relaxed) < 4 * EACH {
                    coro::sleep(SOON).unwrap();
                }
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            })
            .unwrap();
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{backend}: lost, or run twice");
    });
}

#[test]
fn a_thread_waits_for_a_remote_task() {
    each_runtime(|| {
        let remote = coro::remote().unwrap();
        let thread = thread::spawn(move || {
            let go = Arc::new(AtomicBool::new(false));
            let gone = go.clone();
            let waits = remote.spawn(move || -> aio::Result<i32> {
                while !gone.load(Ordering::Relaxed) {
                    coro::sleep(SOON)?;
                }
                Ok(42)
            });
            let waits = waits.unwrap();
            assert!(!waits.is_finished());
            go.store(true, Ordering::Relaxed);
            let panics = remote.spawn(|| -> u8 { panic!("over there") }).unwrap();
            let nested = remote.spawn(|| coro::spawn(|| coro::yield_now().map(|()| 7)).join().unwrap()).unwrap();
            let detached = remote.spawn(|| ()).unwrap();
            drop(detached);
            assert_eq!(panics.join().unwrap_err().to_string(), "the task panicked: over there");
            (waits.join().unwrap(), nested.join().unwrap())
        });
        assert_eq!(coro::offload(|| thread.join().unwrap()), Ok((Ok(42), Ok(7))));
    });
}

#[test]
fn tasks_of_two_runtimes_wait_for_one_another() {
    each_engine(|engine| {
        let (give, take) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let (stop, config) = (over.clone(), runtime(engine));
        let other = thread::spawn(move || {
            config
                .run(|| {
                    give.send(coro::remote().unwrap()).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        coro::sleep(SOON).unwrap();
                    }
                })
                .unwrap();
        });
        let remote = take.recv().unwrap();
        runtime(engine)
            .run(|| {
                let back = coro::remote().unwrap();
                let ticks = Cell::new(0);
                coro::scope(|s| {
                    let joins = [(); 10].map(|()| {
                        let (remote, back) = (&remote, back.clone());
                        s.spawn(move || {
                            // There, back here, and there again.
                            let there = remote
                                .spawn(move || {
                                    coro::sleep(SOON).unwrap();
                                    back.spawn(|| coro::sleep(SOON).map(|()| 5)).unwrap().join().unwrap()
                                })
                                .unwrap();
                            there.join().unwrap()
                        })
                    });
                    s.spawn(|| {
                        while coro::sleep(Duration::from_micros(100)).is_ok() && ticks.get() < 10 {
                            ticks.set(ticks.get() + 1);
                        }
                    });
                    assert_eq!(joins.map(|join| join.join().unwrap()), [Ok(5); 10]);
                });
                assert!(ticks.get() > 0, "the thread was not blocked");
                // A wait that is interrupted leaves the other task alone.
                let ended = Arc::new(AtomicBool::new(false));
                let inner = ended.clone();
                let slow = remote.spawn(move || {
                    coro::sleep(100 * SOON).unwrap();
                    inner.store(true, Ordering::Relaxed);
                });
                let joined = coro::timeout(SOON, || slow.unwrap().join());
                assert!(matches!(joined, Err(JoinError::Interrupted(Error::TimedOut))));
                eventually("it goes on", || ended.load(Ordering::Relaxed));
            })
            .unwrap();
        over.store(true, Ordering::Relaxed);
        other.join().unwrap();
    });
}

#[test]
fn a_parked_task_is_woken_from_another_thread() {
    each_runtime(|| {
        let (remote, rounds) = (coro::remote().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (count, (ready, begin)) = (rounds.clone(), mpsc::channel());
        let task = coro::spawn(move || {
            for _ in 0..200 {
                ready.send(()).unwrap();
                coro::park(3).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let id = task.task();
        let thread = thread::spawn(move || {
            // The task parks before the runtime can learn of the wake-up, for it does not wait in between.
            while begin.recv().is_ok() {
                remote.wake(id).unwrap();
            }
            // It has ended: nothing to wake, and no error.
            remote.wake(id).unwrap();
        });
        task.join().unwrap();
        coro::offload(|| thread.join().unwrap()).unwrap();
        assert_eq!(rounds.load(Ordering::Relaxed), 200);
    });
}

#[test]
fn a_closure_that_never_runs_is_dropped_with_the_runtime() {
    each_engine(|engine| {
        let dropped = Arc::new(());
        let handles = runtime(engine)
            .run(|| {
                let remote = coro::remote().unwrap();
                let spawn = || {
                    let inner = dropped.clone();
                    remote.spawn(move || drop(inner)).unwrap()
                };
                // This one lies in the box when the root returns; nobody has looked into it.
                [spawn(), spawn()]
            })
            .unwrap();
        assert_eq!(Arc::strong_count(&dropped), 1);
        for handle in handles {
            assert!(handle.is_finished());
            assert!(matches!(handle.join(), Err(JoinError::NeverRan)));
        }
    });
}

#[test]
fn a_handle_that_is_joined_after_the_end_of_its_runtime() {
    each_engine(|engine| {
        let (done, cut) = runtime(engine)
            .run(|| {
                let remote = coro::remote().unwrap();
                let done = remote.spawn(|| String::from("kept")).unwrap();
                let cut = remote.spawn(|| coro::sleep(NEVER)).unwrap();
                eventually("it ends", || done.is_finished());
                (done, cut)
            })
            .unwrap();
        assert_eq!(done.join().unwrap(), "kept");
        assert_eq!(cut.join().unwrap(), Err(Error::Canceled));
    });
}

#[test]
fn a_closure_whose_drop_panics_does_not_keep_the_runtime_from_ending() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("dropped unasked");
        }
    }
    each_engine(|engine| {
        let handle = runtime(engine)
            .run(|| {
                let bad = Bad;
                coro::remote().unwrap().spawn(move || drop(bad)).unwrap()
            })
            .unwrap();
        assert!(handle.is_finished());
        assert!(handle.join().is_err());
    });
}

#[test]
fn a_remote_used_by_its_own_runtime() {
    each_runtime(|| {
        let remote = coro::remote().unwrap();
        assert_eq!(remote.spawn(|| 5).unwrap().join().unwrap(), 5);
        let task = coro::spawn(|| coro::park(1));
        remote.wake(task.task()).unwrap();
        assert_eq!(task.join().unwrap(), Ok(()));
        let (a, b) = UnixStream::pair().unwrap();
        let reads = remote.spawn(move || aio::single(Recv::new(&a, &mut [0u8; 4]))).unwrap();
        coro::yield_now().unwrap();
        aio::single(Send::new(&b, "abc")).unwrap();
        assert_eq!(reads.join().unwrap(), Ok(3));
    });
}

#[test]
fn remotes_that_come_and_go_while_the_runtime_ends() {
    each_backend(|backend| {
        for round in 0..100u64 {
            let ran = Arc::new(Mutex::new(0));
            let thread = coro::Config::new()
                .backend(backend)
                .run(|| {
                    let (remote, ran) = (coro::remote().unwrap(), ran.clone());
                    let thread = thread::spawn(move || {
                        let (mut results, mut count) = (vec![], 0);
                        loop {
                            let ran = ran.clone();
                            let Ok(handle) = remote.clone().spawn(move || *ran.lock().unwrap() += 1) else { break };
                            results.push(handle);
                            // So that it does not run away from the runtime.
                            if results.len() == 50 {
                                count += results.drain(..).filter_map(|handle| handle.join().ok()).count();
                            }
                        }
                        count + results.into_iter().filter_map(|handle| handle.join().ok()).count()
                    });
                    coro::sleep(Duration::from_micros(round * 10)).unwrap();
                    thread
                })
                .unwrap();
            assert_eq!(thread.join().unwrap(), *ran.lock().unwrap(), "each says what has become of it");
        }
    });
}

#[test]
fn a_wait_for_another_runtime_inside_no_suspend_blocks_the_thread() {
    each_engine(|engine| {
        let (give, take) = mpsc::channel();
        let (over, config) = (Arc::new(AtomicBool::new(false)), runtime(engine));
        let stop = over.clone();
        let other = thread::spawn(move || {
            config
                .run(|| {
                    give.send(coro::remote().unwrap()).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        coro::sleep(SOON).unwrap();
                    }
                })
                .unwrap();
        });
        let remote = take.recv().unwrap();
        runtime(engine)
            .run(|| {
                let yields = coro::spawn(|| while coro::yield_now().is_ok() {});
                let spawn = |ms| remote.spawn(move || coro::sleep(Duration::from_millis(ms))).unwrap();
                assert_eq!(coro::no_suspend(|| spawn(3).join()).unwrap(), Ok(()));
                let late = coro::timeout(SOON, || coro::no_suspend(|| spawn(200).join()));
                assert!(matches!(late, Err(JoinError::Interrupted(Error::TimedOut))));
                yields.cancel();
                yields.join().unwrap();
            })
            .unwrap();
        over.store(true, Ordering::Relaxed);
        other.join().unwrap();
    });
}
