//! Events, locks and semaphores among the tasks of a runtime.

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use aio::{Error, coro, sync::*};
use common::*;
use std::{
    cell::{Cell, RefCell},
    time::Duration,
};
use tasks::*;

#[test]
fn a_manual_event_lets_all_through_until_it_is_reset() {
    each_runtime(|| {
        let event = Event::new();
        give_up(|| event.wait());
        coro::scope(|s| {
            let tasks: Vec<_> = (0..3).map(|_| s.spawn(|| event.wait())).collect();
            assert!(!event.is_set() && !event.try_wait());
            event.set();
            for task in tasks {
                assert_eq!(task.join().unwrap(), Ok(()));
            }
            assert!(event.is_set() && event.try_wait());
            assert_eq!(event.wait(), Ok(()));
            event.reset();
            assert!(!event.is_set());
            let task = s.spawn(|| event.wait());
            assert!(!task.is_finished());
            // Those who waited when it was set go on, whatever comes after.
            event.set();
            event.reset();
            assert_eq!(task.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn an_auto_reset_event_lets_one_through_each_time() {
    each_runtime(|| {
        let event = Event::auto_reset();
        give_up(|| event.wait());
        let order = RefCell::new(vec![]);
        coro::scope(|s| {
            for i in 0..4 {
                let (event, order) = (&event, &order);
                s.spawn(move || {
                    event.wait().unwrap();
                    order.borrow_mut().push(i);
                });
            }
            for n in 1..=4 {
                event.set();
                coro::sleep(soon()).unwrap();
                assert_eq!(order.borrow().len(), n);
                assert!(!event.is_set());
            }
        });
        assert_eq!(*order.borrow(), [0, 1, 2, 3]);
        event.set();
        event.set();
        assert!(event.try_wait());
        assert!(!event.try_wait());
    });
}

#[test]
fn what_is_given_to_a_task_that_is_cancelled_counts() {
    each_runtime(|| {
        let (event, semaphore, mutex) = (Event::auto_reset(), Semaphore::new(0), Mutex::new(()));
        coro::scope(|s| {
            let task = s.spawn(|| event.wait());
            event.set();
            task.cancel();
            assert_eq!(task.join().unwrap(), Ok(()));
            assert!(!event.is_set());

            let task = s.spawn(|| semaphore.acquire(1).map(|permit| permit.forget()));
            semaphore.add_permits(1);
            task.cancel();
            assert_eq!(task.join().unwrap(), Ok(()));
            assert_eq!(semaphore.available(), 0);

            let guard = mutex.lock().unwrap();
            let task = s.spawn(|| mutex.lock().map(drop));
            drop(guard);
            assert!(mutex.is_locked(), "handed over");
            task.cancel();
            assert_eq!(task.join().unwrap(), Ok(()));
            assert!(!mutex.is_locked());

            // The other way round the task leaves, and the next one gets it.
            let task = s.spawn(|| event.wait());
            task.cancel();
            coro::yield_now().unwrap();
            event.set();
            assert_eq!(task.join().unwrap(), Err(Error::Canceled));
            assert!(event.is_set());
        });
    });
}

#[test]
fn a_mutex_is_handed_on_in_order() {
    each_runtime(|| {
        let mutex = Mutex::new(vec![]);
        let guard = mutex.lock().unwrap();
        assert!(mutex.try_lock().is_none());
        give_up(|| mutex.lock().map(drop));
        coro::scope(|s| {
            for i in 0..5 {
                let mutex = &mutex;
                s.spawn(move || {
                    let mut list = mutex.lock().unwrap();
                    list.push(i);
                    coro::yield_now().unwrap();
                    list.push(i);
                });
            }
            drop(guard);
            assert!(mutex.try_lock().is_none(), "nobody gets in before those who wait");
        });
        assert_eq!(*mutex.try_lock().unwrap(), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        std::mem::forget(mutex.try_lock().unwrap());
        assert_eq!(mutex.lock().map(drop), Err(Error::Deadlock));
        assert_eq!(mutex.into_inner().len(), 10);
    });
}

#[test]
fn a_panic_releases_a_mutex() {
    each_runtime(|| {
        let mutex = Mutex::new(0);
        coro::scope(|s| {
            let task = s.spawn(|| {
                let mut value = mutex.lock().unwrap();
                *value = 1;
                coro::yield_now().unwrap();
                panic!("on purpose");
            });
            let next = s.spawn(|| *mutex.lock().unwrap());
            assert!(matches!(task.join(), Err(coro::JoinError::Panicked(_))));
            assert_eq!(next.join().unwrap(), 1);
        });
    });
}

#[test]
fn readers_share_and_a_waiting_writer_keeps_later_ones_out() {
    each_runtime(|| {
        let (lock, order) = (RwLock::new(0), RefCell::new(vec![]));
        let write = lock.write().unwrap();
        give_up(|| lock.read().map(drop));
        drop(write);
        let read = lock.read().unwrap();
        give_up(|| lock.write().map(drop));
        assert!(lock.try_read().is_some() && lock.try_write().is_none());
        coro::scope(|s| {
            s.spawn(|| {
                *lock.write().unwrap() += 1;
                order.borrow_mut().push("write");
            });
            for _ in 0..2 {
                s.spawn(|| {
                    assert_eq!(*lock.read().unwrap(), 1);
                    order.borrow_mut().push("read");
                });
            }
            s.spawn(|| {
                *lock.write().unwrap() += 1;
                order.borrow_mut().push("write");
            });
            assert!(lock.try_read().is_none());
            drop(read);
        });
        assert_eq!(*order.borrow(), ["write", "read", "read", "write"]);
        assert_eq!(lock.into_inner(), 2);
    });
}

#[test]
fn readers_go_on_when_the_writer_before_them_gives_up() {
    each_runtime(|| {
        let lock = RwLock::new(7);
        let read = lock.read().unwrap();
        coro::scope(|s| {
            let writer = s.spawn(|| lock.write().map(drop));
            let readers: Vec<_> = (0..3).map(|_| s.spawn(|| lock.read().map(|value| *value))).collect();
            let last = s.spawn(|| lock.write().map(drop));
            assert!(readers.iter().all(|reader| !reader.is_finished()));
            writer.cancel();
            assert_eq!(writer.join().unwrap(), Err(Error::Canceled));
            for reader in readers {
                assert_eq!(reader.join().unwrap(), Ok(7));
            }
            assert!(!last.is_finished());
            drop(read);
            assert_eq!(last.join().unwrap(), Ok(()));
        });
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn a_semaphore_is_fair_to_those_who_want_many() {
    each_runtime(|| {
        let (semaphore, order) = (Semaphore::new(3), RefCell::new(vec![]));
        let held = semaphore.acquire(2).unwrap();
        give_up(|| semaphore.acquire(2).map(drop));
        coro::scope(|s| {
            for n in [3, 1, 1] {
                let (semaphore, order) = (&semaphore, &order);
                s.spawn(move || {
                    let permit = semaphore.acquire(n).unwrap();
                    order.borrow_mut().push(permit.count());
                });
            }
            assert!(semaphore.try_acquire(1).is_none(), "there is one, but others wait");
            drop(held);
        });
        assert_eq!(*order.borrow(), [3, 1, 1]);
        assert_eq!(semaphore.available(), 3);
        assert!(semaphore.try_acquire(4).is_none());
        semaphore.try_acquire(2).unwrap().forget();
        assert_eq!(semaphore.available(), 1);
        semaphore.add_permits(usize::MAX);
        assert_eq!(semaphore.available(), usize::MAX);
        assert_eq!(semaphore.acquire(0).unwrap().count(), 0);
    });
}

#[test]
fn those_behind_a_task_that_wants_too_much_go_on_when_it_leaves() {
    each_runtime(|| {
        let semaphore = Semaphore::new(1);
        coro::scope(|s| {
            let greedy = s.spawn(|| semaphore.acquire(2).map(drop));
            let modest = s.spawn(|| semaphore.acquire(1).map(drop));
            assert!(!modest.is_finished());
            greedy.cancel();
            assert_eq!(modest.join().unwrap(), Ok(()));
            assert_eq!(greedy.join().unwrap(), Err(Error::Canceled));
        });
        assert_eq!(semaphore.available(), 1);
    });
}

#[test]
fn a_dump_says_what_tasks_wait_for() {
    each_runtime(|| {
        let (event, mutex, semaphore) = (Event::new(), Mutex::new(()), Semaphore::new(0));
        let guard = mutex.lock().unwrap();
        coro::scope(|s| {
            s.spawn(|| event.wait());
            s.spawn(|| mutex.lock().map(drop));
            s.spawn(|| semaphore.acquire(1).map(drop));
            let dump = coro::dump().to_string();
            for what in ["an event", "a mutex", "permits of a semaphore"] {
                assert!(dump.contains(&format!("waits for {what}\n")) || dump.ends_with(what), "{what} in {dump}");
            }
            s.cancel();
        });
        drop(guard);
    });
}

#[test]
fn a_task_may_give_up_as_often_as_it_likes() {
    coro::run(|| {
        let event = Event::new();
        for _ in 0..120_000 {
            assert_eq!(coro::timeout(Duration::ZERO, || event.wait()), Err(Error::TimedOut));
        }
    })
    .unwrap();
}

#[test]
fn random_cancels_leave_everything_usable() {
    each_runtime(|| {
        let (mutex, lock, semaphore) = (Mutex::new(0u32), RwLock::new(0u32), Semaphore::new(3));
        let (done, written) = (Cell::new(0), Cell::new(0));
        coro::scope(|s| {
            for seed in 1..=8u64 {
                let (mutex, lock, semaphore, done, written) = (&mutex, &lock, &semaphore, &done, &written);
                s.spawn(move || {
                    let mut random = Random(seed);
                    for _ in 0..100 {
                        let limit = Duration::from_micros(random.below(60));
                        let kind = random.below(4);
                        let pause = || coro::shield(|| coro::sleep(Duration::from_micros(10))).unwrap();
                        _ = coro::timeout(limit, || {
                            match kind {
                                0 => {
                                    let mut value = mutex.lock()?;
                                    let before = *value;
                                    pause();
                                    *value = before + 1;
                                    done.set(done.get() + 1);
                                }
                                1 => {
                                    let value = lock.read()?;
                                    let before = *value;
                                    pause();
                                    assert_eq!(*value, before);
                                }
                                2 => {
                                    let mut value = lock.write()?;
                                    let before = *value;
                                    pause();
                                    *value = before + 1;
                                    written.set(written.get() + 1);
                                }
                                _ => {
                                    let permit = semaphore.acquire(1 + random.below(3) as usize)?;
                                    pause();
                                    drop(permit);
                                }
                            }
                            Ok::<(), Error>(())
                        });
                    }
                });
            }
        });
        assert_eq!((*mutex.try_lock().unwrap(), *lock.try_write().unwrap()), (done.get(), written.get()));
        assert_eq!(semaphore.available(), 3);
        assert!(done.get() > 0 && written.get() > 0);
    });
}
