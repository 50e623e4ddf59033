//! Locks, signals and channels between runtimes and plain threads.

mod common;

use aio::{
    Error, coro,
    sync::{
        self, RecvError, SendFailure, generic,
        shared::{self, *},
    },
};
use common::*;
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

/// Runs a test on a thread of its own engine, once for each backend.
#[track_caller]
fn each_config(test: impl Fn(coro::Config) + Sync) {
    each_backend_with(
        |config| config,
        |backend| {
            // The thread is inside an engine here, and is to be a plain one.
            let config = coro::Config::new().engine(aio::Config::new().backend(backend));
            thread::scope(|s| s.spawn(|| test(config)).join().unwrap());
        },
    );
}

#[test]
fn a_task_sees_what_four_threads_release() {
    each_config(|config| {
        const EACH: usize = 25_000;
        let semaphore = Semaphore::new(0);
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..EACH).for_each(|_| semaphore.add_permits(1)));
            }
            config
                .run(|| {
                    let other = Cell::new(0);
                    coro::scope(|s| {
                        s.spawn(|| {
                            for _ in 0..EACH {
                                semaphore.acquire(1).unwrap().forget();
                                other.set(other.get() + 1);
                            }
                        });
                        for _ in 0..3 * EACH {
                            semaphore.acquire(1).unwrap().forget();
                        }
                    });
                    assert_eq!(other.get(), EACH);
                })
                .unwrap();
        });
        assert_eq!(semaphore.available(), 0);
    });
}

#[test]
fn four_threads_and_two_runtimes_count_under_a_mutex() {
    each_config(|config| {
        let counter = Mutex::new(0u32);
        let add = |n| (0..n).for_each(|_| *counter.lock().unwrap() += 1);
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| add(10_000));
            }
            for _ in 0..2 {
                let (config, add) = (config.clone(), &add);
                s.spawn(move || {
                    config.run(|| coro::scope(|s| (0..5).for_each(|_| drop(s.spawn(|| add(500)))))).unwrap();
                });
            }
        });
        assert_eq!(counter.into_inner(), 45_000);
    });
}

#[test]
fn a_task_and_a_thread_play_ping_pong() {
    each_config(|config| {
        let (ping, pong) = (Event::auto_reset(), Event::auto_reset());
        let turns = AtomicUsize::new(0);
        thread::scope(|s| {
            s.spawn(|| {
                for i in 0..2000 {
                    ping.wait().unwrap();
                    assert_eq!(turns.fetch_add(1, SeqCst), 2 * i);
                    pong.set();
                }
            });
            config
                .run(|| {
                    for i in 0..2000 {
                        ping.set();
                        pong.wait().unwrap();
                        assert_eq!(turns.fetch_add(1, SeqCst), 2 * i + 1);
                    }
                })
                .unwrap();
        });
    });
}

#[test]
fn a_shared_wait_is_given_up() {
    each_config(|config| {
        let (event, mutex, changed) = (Event::new(), Mutex::new(()), Condvar::new());
        config
            .clone()
            .run(|| {
                assert_eq!(coro::timeout(Duration::from_millis(1), || event.wait()), Err(Error::TimedOut));
                let task = coro::scope(|s| {
                    let task = s.spawn(|| event.wait());
                    task.cancel();
                    task.join().unwrap()
                });
                assert_eq!(task, Err(Error::Canceled));
                let guard = mutex.lock().unwrap();
                let late = coro::timeout(Duration::from_millis(1), || changed.wait(guard)).unwrap_err();
                assert_eq!((late.error, late.guard.is_some()), (Error::TimedOut, true));
            })
            .unwrap();
        assert!(!mutex.is_locked());
        // What no other task may interrupt blocks the thread, and tasks are not switched.
        thread::scope(|s| {
            s.spawn(|| {
                thread::sleep(Duration::from_millis(5));
                event.set();
            });
            config
                .run(|| {
                    let other = coro::spawn(|| coro::yield_now().unwrap());
                    assert_eq!(coro::no_suspend(|| event.wait()), Ok(()));
                    assert!(!other.is_finished());
                })
                .unwrap();
        });
    });
}

#[test]
fn a_shared_lock_keeps_writers_and_readers_apart() {
    each_config(|config| {
        let lock = RwLock::new((0u64, 0u64));
        let work = |write: bool| {
            for _ in 0..2000 {
                if write {
                    let mut pair = lock.write().unwrap();
                    pair.0 += 1;
                    thread::yield_now();
                    pair.1 += 1;
                } else {
                    let pair = lock.read().unwrap();
                    assert_eq!(pair.0, pair.1);
                }
            }
        };
        thread::scope(|s| {
            for write in [true, false] {
                let (config, work) = (config.clone(), &work);
                s.spawn(move || work(write));
                s.spawn(move || {
                    config
                        .run(|| {
                            coro::scope(|s| {
                                s.spawn(|| work(write));
                                s.spawn(|| work(!write));
                            });
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(lock.into_inner(), (6000, 6000));
    });
}

#[test]
fn threads_and_tasks_meet_at_a_barrier() {
    each_config(|config| {
        const ROUNDS: usize = 300;
        let (barrier, leaders, inside) = (Barrier::new(5), AtomicUsize::new(0), AtomicUsize::new(0));
        let meet = || {
            for round in 0..ROUNDS {
                inside.fetch_add(1, SeqCst);
                leaders.fetch_add(usize::from(barrier.wait().unwrap()), SeqCst);
                assert!(inside.load(SeqCst) >= 5 * (round + 1));
            }
        };
        thread::scope(|s| {
            s.spawn(meet);
            s.spawn(meet);
            s.spawn(|| config.clone().run(meet).unwrap());
            config.clone().run(|| coro::scope(|s| [s.spawn(meet), s.spawn(meet)].map(drop))).unwrap();
        });
        assert_eq!(leaders.into_inner(), ROUNDS);
    });
}

#[test]
fn a_barrier_between_threads_survives_those_who_leave() {
    each_config(|config| {
        let (barrier, passed) = (Barrier::new(3), AtomicUsize::new(0));
        thread::scope(|s| {
            // Two come for each round, and a third one now and then, in a hurry.
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..200 {
                        barrier.wait().unwrap();
                    }
                });
            }
            config
                .run(|| {
                    let mut random = Random(7);
                    while passed.load(SeqCst) < 200 {
                        let limit = Duration::from_micros(random.below(30));
                        match coro::timeout(limit, || barrier.wait()) {
                            Ok(_) => _ = passed.fetch_add(1, SeqCst),
                            Err(error) => assert_eq!(error, Error::TimedOut),
                        }
                    }
                })
                .unwrap();
        });
        assert_eq!(passed.into_inner(), 200);
    });
}

#[test]
fn notifications_cross_threads() {
    each_config(|config| {
        let (queue, changed) = (Mutex::new((0u64, false)), Condvar::new());
        let taken = AtomicU64::new(0);
        let consume = || {
            loop {
                let guard = queue.lock().unwrap();
                let mut guard = changed.wait_while(guard, |(n, end)| *n == 0 && !*end).unwrap();
                if guard.0 == 0 {
                    return;
                }
                guard.0 -= 1;
                taken.fetch_add(1, SeqCst);
            }
        };
        thread::scope(|s| {
            s.spawn(consume);
            s.spawn(|| config.clone().run(|| coro::scope(|s| [s.spawn(consume), s.spawn(consume)].map(drop))));
            for _ in 0..5000 {
                queue.lock().unwrap().0 += 1;
                changed.notify_one();
            }
            queue.lock().unwrap().1 = true;
            changed.notify_all();
        });
        assert_eq!(taken.into_inner(), 5000);
    });
}

#[test]
fn a_shared_cell_is_filled_by_one_thread() {
    each_config(|config| {
        for round in 0..50 {
            let (cell, tries) = (OnceCell::new(), AtomicUsize::new(0));
            let fill = || {
                let value = cell.get_or_try_init(|| match tries.fetch_add(1, SeqCst) {
                    0 if round % 2 == 0 => Err(Error::Skipped),
                    1 if round % 3 == 0 => panic!("on purpose"),
                    n => Ok(Box::new(n)),
                });
                value.map(|value| **value)
            };
            let fill = || catch_unwind(AssertUnwindSafe(fill)).unwrap_or(Err(Error::Skipped));
            let results = thread::scope(|s| {
                let threads = [0, 1, 2].map(|_| s.spawn(fill));
                let task = s.spawn(|| config.clone().run(fill).unwrap());
                let mut results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
                results.push(task.join().unwrap());
                results
            });
            let value = **cell.get().unwrap();
            assert_eq!(value + 1, tries.into_inner());
            assert_eq!(results.iter().filter(|result| **result == Err(Error::Skipped)).count(), value);
            assert!(results.iter().all(|result| [Ok(value), Err(Error::Skipped)].contains(result)));
        }
    });
}

/// Counts those of its kind that exist.
struct Counted<'a>(u64, &'a AtomicI64);

impl<'a> Counted<'a> {
    fn new(n: u64, alive: &'a AtomicI64) -> Counted<'a> {
        alive.fetch_add(1, SeqCst);
        Counted(n, alive)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}

#[test]
fn no_value_is_lost_between_threads_that_give_up() {
    each_config(|config| {
        for capacity in [0, 2] {
            let (alive, sent, received) = (AtomicI64::new(0), AtomicU64::new(0), AtomicU64::new(0));
            let (sender, receiver) = shared::channel(capacity);
            let send = |sender: Sender<_>, seed| {
                let mut random = Random(seed);
                for i in 1..1000 {
                    let value = Counted::new(i, &alive);
                    let limit = Duration::from_micros(random.below(40));
                    match coro::timeout(limit, || sender.send(value)) {
                        Ok(()) => _ = sent.fetch_add(i, SeqCst),
                        Err(error) => assert_eq!(error.value.0, i),
                    }
                }
            };
            let receive = |receiver: Receiver<Counted>, seed| {
                let mut random = Random(seed);
                loop {
                    let limit = Duration::from_micros(random.below(40));
                    match coro::timeout(limit, || receiver.recv()) {
                        Ok(value) => _ = received.fetch_add(value.0, SeqCst),
                        Err(RecvError::Closed) => return,
                        Err(RecvError::Interrupted(error)) => assert_eq!(error, Error::TimedOut),
                    }
                }
            };
            thread::scope(|s| {
                for seed in 1..=2 {
                    let (config, sender, receiver, alive) = (config.clone(), sender.clone(), receiver.clone(), &alive);
                    let (send, receive, sent, received) = (&send, &receive, &sent, &received);
                    s.spawn(move || config.run(|| receive(receiver, seed)).unwrap());
                    let (config, other) = (coro::Config::new(), sender.clone());
                    s.spawn(move || config.run(|| send(other, seed + 10)).unwrap());
                    s.spawn(move || {
                        for i in 0..500 {
                            sender.send(Counted::new(i, alive)).map_err(|error| error.reason).unwrap();
                            sent.fetch_add(i, SeqCst);
                        }
                    });
                    let _ = received;
                }
                drop(sender);
                // A plain thread takes part, too.
                receiver.iter().for_each(|value| _ = received.fetch_add(value.0, SeqCst));
            });
            assert_eq!(alive.load(SeqCst), 0);
            assert_eq!(sent.load(SeqCst), received.load(SeqCst));
            assert!(sent.load(SeqCst) > 0);
        }
    });
}

#[test]
fn channels_close_between_threads() {
    each_config(|config| {
        let (sender, receiver) = shared::channel(0);
        thread::scope(|s| {
            let waiting = s.spawn({
                let sender = sender.clone();
                move || sender.send(1).unwrap_err().reason
            });
            thread::sleep(Duration::from_millis(2));
            drop(receiver);
            assert_eq!(waiting.join().unwrap(), SendFailure::Closed);
        });
        let (sender, receiver) = shared::unbounded::<i32>();
        thread::scope(|s| {
            let waiting = s.spawn(|| config.clone().run(|| receiver.recv()).unwrap());
            thread::sleep(Duration::from_millis(2));
            drop(sender);
            assert_eq!(waiting.join().unwrap(), Err(RecvError::Closed));
        });
        let (sender, receiver) = oneshot::channel::<i32>();
        thread::scope(|s| {
            let waiting = s.spawn(|| sender.closed());
            thread::sleep(Duration::from_millis(2));
            drop(receiver);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn a_shared_broadcast_without_receivers_gives_values_back() {
    let (sender, receiver) = broadcast::channel(2);
    drop(receiver);
    assert_eq!(sender.send("nobody").unwrap_err().value, "nobody");
}

#[test]
fn a_broadcast_crosses_threads() {
    each_config(|config| {
        const COUNT: u64 = 5000;
        let (sender, first) = broadcast::channel(16);
        let receive = |mut receiver: broadcast::Receiver<u64>| {
            let (mut seen, mut lost, mut last) = (0, 0, None);
            loop {
                match receiver.recv() {
                    Ok(n) => {
                        assert!(last.is_none_or(|last| n > last));
                        last = Some(n);
                        seen += 1;
                    }
                    Err(broadcast::RecvError::Lagged(n)) => lost += n,
                    Err(error) => {
                        assert_eq!((error, last), (broadcast::RecvError::Closed, Some(COUNT - 1)));
                        return seen + lost;
                    }
                }
            }
        };
        let second = sender.subscribe();
        thread::scope(|s| {
            let threads =
                [s.spawn(|| receive(first)), s.spawn(|| config.clone().run(move || receive(second)).unwrap())];
            for i in 0..COUNT {
                assert_eq!(sender.send(i).unwrap(), 2);
            }
            drop(sender);
            for thread in threads {
                assert_eq!(thread.join().unwrap(), COUNT);
            }
        });
    });
}

#[test]
fn a_watch_crosses_threads() {
    each_config(|config| {
        let (sender, mut receiver) = watch::channel(0);
        thread::scope(|s| {
            let mut other = receiver.clone();
            let mut last = move || {
                let mut last = 0;
                while let Ok(n) = other.recv() {
                    assert!(n > last);
                    last = n;
                }
                last
            };
            let task = s.spawn(move || config.run(&mut last).unwrap());
            (1..=5000).for_each(|n| sender.send(n));
            drop(sender);
            assert_eq!(task.join().unwrap(), 5000);
        });
        assert_eq!((receiver.recv(), receiver.recv()), (Ok(5000), Err(RecvError::Closed)));
    });
}

#[test]
fn code_may_be_generic_over_who_shares() {
    fn pass<M: sync::Mode>(event: &generic::Event<M>) -> Result<(), Error> {
        event.set();
        event.wait()
    }
    static READY: AtomicBool = AtomicBool::new(false);
    static EVENT: shared::Event = shared::Event::new();
    const LOCAL: fn() -> sync::Event = sync::Event::new;
    assert_eq!((pass(&EVENT), pass(&LOCAL())), (Ok(()), Ok(())));
    READY.store(EVENT.is_set(), SeqCst);
    assert!(READY.load(SeqCst));
}
