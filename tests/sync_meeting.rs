//! Condition variables, barriers, and what is done once, among the tasks of a runtime.

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use aio::{Error, coro, sync::*};
use common::each_runtime;
use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};
use tasks::*;

#[test]
fn a_condvar_gives_the_mutex_back_in_any_case() {
    each_runtime(|| {
        let (mutex, changed) = (Mutex::new(0), Condvar::new());
        give_up(|| {
            let error = changed.wait(mutex.lock().unwrap()).unwrap_err();
            assert!(mutex.is_locked() && error.guard.is_some());
            Err(error.into())
        });
        assert!(!mutex.is_locked());
        coro::scope(|s| {
            // It is cancelled while another one has the mutex, and waits for that.
            let task = s.spawn(|| {
                let error = changed.wait(mutex.lock().unwrap()).unwrap_err();
                (error.error, *error.guard.unwrap())
            });
            let mut value = mutex.lock().unwrap();
            task.cancel();
            coro::sleep(soon()).unwrap();
            assert!(!task.is_finished());
            *value = 1;
            drop(value);
            assert_eq!(task.join().unwrap(), (Error::Canceled, 1));
        });
        assert!(!mutex.is_locked());
    });
}

#[test]
fn a_condvar_whose_mutex_cannot_be_had_again_says_so() {
    each_runtime(|| {
        let (mutex, changed) = (Mutex::new(0), Condvar::new());
        coro::scope(|s| {
            let task = s.spawn(|| {
                coro::yield_now().unwrap();
                std::mem::forget(mutex.lock().unwrap());
            });
            let error = changed.wait(mutex.lock().unwrap()).unwrap_err();
            assert_eq!((error.error, error.guard.is_some()), (Error::Deadlock, false));
            task.join().unwrap();
        });
    });
}

#[test]
fn notifications_reach_those_who_wait_and_no_others() {
    each_runtime(|| {
        let (mutex, changed, awake) = (Mutex::new(()), Condvar::new(), RefCell::new(vec![]));
        changed.notify_one();
        changed.notify_all();
        coro::scope(|s| {
            for i in 0..6 {
                let (mutex, changed, awake) = (&mutex, &changed, &awake);
                s.spawn(move || {
                    let guard = changed.wait(mutex.lock().unwrap()).unwrap();
                    awake.borrow_mut().push(i);
                    coro::yield_now().unwrap();
                    drop(guard);
                });
            }
            assert!(awake.borrow().is_empty(), "what nobody waited for is not remembered");
            changed.notify_one();
            changed.notify_one();
            coro::sleep(soon()).unwrap();
            assert_eq!(*awake.borrow(), [0, 1]);
            changed.notify_all();
            coro::sleep(soon()).unwrap();
            assert_eq!(*awake.borrow(), [0, 1, 2, 3, 4, 5]);
        });
    });
}

#[test]
fn a_notification_of_a_cancelled_task_is_not_lost() {
    each_runtime(|| {
        let (mutex, changed) = (Mutex::new(()), Condvar::new());
        coro::scope(|s| {
            let one = s.spawn(|| changed.wait(mutex.lock().unwrap()).map(drop).map_err(Error::from));
            let two = s.spawn(|| changed.wait(mutex.lock().unwrap()).map(drop).map_err(Error::from));
            one.cancel();
            changed.notify_one();
            // The first was still in the queue: the notification is its.
            assert_eq!(one.join().unwrap(), Ok(()));
            let three = s.spawn(|| changed.wait(mutex.lock().unwrap()).map(drop).map_err(Error::from));
            two.cancel();
            assert_eq!(two.join().unwrap(), Err(Error::Canceled));
            changed.notify_one();
            assert_eq!(three.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn a_condvar_passes_work_from_one_to_many() {
    each_runtime(|| {
        let (jobs, changed, done) = (Mutex::new((Vec::new(), false)), Condvar::new(), Cell::new(0));
        coro::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    loop {
                        let guard = jobs.lock().unwrap();
                        let mut guard = changed.wait_while(guard, |(jobs, end)| jobs.is_empty() && !*end).unwrap();
                        match guard.0.pop() {
                            Some(n) => done.set(done.get() + n),
                            None => return,
                        }
                        drop(guard);
                        coro::yield_now().unwrap();
                    }
                });
            }
            for _ in 0..1000 {
                jobs.lock().unwrap().0.push(1);
                changed.notify_one();
            }
            coro::yield_now().unwrap();
            jobs.lock().unwrap().1 = true;
            changed.notify_all();
        });
        assert_eq!(done.get(), 1000);
    });
}

#[test]
fn a_barrier_can_be_used_again_and_does_not_count_those_who_left() {
    each_runtime(|| {
        let six = Barrier::new(6);
        give_up(|| six.wait().map(drop));
        coro::scope(|s| {
            let tasks: Vec<_> = (0..5).map(|_| s.spawn(|| six.wait())).collect();
            assert!(tasks.iter().all(|task| !task.is_finished()), "those who left do not count");
            assert_eq!(six.wait(), Ok(true));
        });
        let (barrier, leaders) = (Barrier::new(3), Cell::new(0));
        coro::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for round in 0..100 {
                        let leader = barrier.wait().unwrap();
                        leaders.set(leaders.get() + usize::from(leader));
                        assert_eq!(leaders.get(), round + 1);
                    }
                });
            }
        });
        assert_eq!(leaders.get(), 100);
        coro::scope(|s| {
            let one = s.spawn(|| barrier.wait());
            let two = s.spawn(|| barrier.wait());
            one.cancel();
            assert_eq!(one.join().unwrap(), Err(Error::Canceled));
            let three = s.spawn(|| barrier.wait());
            assert!(!two.is_finished() && !three.is_finished());
            assert_eq!(barrier.wait(), Ok(true));
            assert_eq!((two.join().unwrap(), three.join().unwrap()), (Ok(false), Ok(false)));
        });
        assert_eq!(Barrier::new(1).wait(), Ok(true));
        assert_eq!(Barrier::new(0).wait(), Ok(true));
    });
}

#[test]
fn a_cell_is_filled_once() {
    each_runtime(|| {
        let (cell, tries) = (OnceCell::new(), Cell::new(0));
        coro::scope(|s| {
            let tasks: Vec<_> = (0..5)
                .map(|i| {
                    let (cell, tries) = (&cell, &tries);
                    s.spawn(move || {
                        cell.get_or_try_init(|| {
                            tries.set(tries.get() + 1);
                            coro::sleep(soon())?;
                            Ok::<i32, Error>(i)
                        })
                    })
                })
                .collect();
            assert_eq!((cell.get(), cell.set(9)), (None, Err(9)));
            for task in tasks {
                assert_eq!(task.join().unwrap(), Ok(&0));
            }
        });
        assert_eq!((tries.get(), cell.get(), cell.set(9)), (1, Some(&0), Err(9)));
        let mut cell = cell;
        *cell.get_mut().unwrap() += 5;
        assert_eq!((cell.take(), cell.get()), (Some(5), None));
        assert_eq!((cell.set(3), cell.into_inner()), (Ok(()), Some(3)));
    });
}

#[test]
fn an_initialiser_that_ends_without_a_value_lets_the_next_one_try() {
    each_runtime(|| {
        let cell = OnceCell::new();
        let slow = |result: Result<u32, &'static str>| {
            cell.get_or_try_init(move || {
                coro::sleep(Duration::from_millis(2))?;
                match result {
                    Err("panic") => panic!("on purpose"),
                    other => other.map_err(|_| Error::Skipped),
                }
            })
        };
        coro::scope(|s| {
            let fails = s.spawn(|| slow(Err("fail")));
            let panics = s.spawn(|| slow(Err("panic")));
            let gives_up = s.spawn(|| slow(Ok(0)));
            let canceled = s.spawn(|| slow(Ok(1)));
            let works = s.spawn(|| slow(Ok(2)));
            gives_up.cancel();
            assert_eq!(gives_up.join().unwrap(), Err(Error::Canceled), "while it waits");
            assert_eq!(fails.join().unwrap(), Err(Error::Skipped));
            assert_eq!(cell.set(9), Err(9), "it is the next one's turn");
            assert!(matches!(panics.join(), Err(coro::JoinError::Panicked(_))));
            coro::yield_now().unwrap();
            canceled.cancel();
            assert_eq!(canceled.join().unwrap(), Err(Error::Canceled), "in its initialiser");
            assert_eq!(works.join().unwrap(), Ok(&2));
        });
        let once = Once::new();
        assert!(catch_unwind(AssertUnwindSafe(|| once.call_once(|| panic!("on purpose")))).is_err());
        assert_eq!(once.try_call_once(|| Err(Error::Skipped)), Err(Error::Skipped));
        assert!(!once.is_completed());
        assert_eq!(once.call_once(|| ()), Ok(()));
        assert!(once.is_completed());
        assert_eq!(once.call_once(|| unreachable!("it was done")), Ok(()));
    });
}

#[test]
fn a_wait_for_a_value_is_given_up() {
    each_runtime(|| {
        let (cell, go) = (OnceCell::new(), Event::new());
        let filler = Rc::new(());
        coro::scope(|s| {
            let task = s.spawn(|| {
                cell.get_or_try_init(|| {
                    // Ends by the deadlock that `give_up` makes: the root is told first.
                    go.wait()?;
                    Ok::<_, Error>(filler.clone())
                })
                .map(drop)
            });
            give_up(|| cell.get_or_init(|| unreachable!("another one is at it")).map(drop));
            go.set();
            assert_eq!(task.join().unwrap(), Ok(()));
        });
        assert!(cell.get().is_some());
        drop(cell);
        assert_eq!(Rc::strong_count(&filler), 1);
    });
}
