//! Scopes: children that borrow, and the parent that waits for them.

mod common;

use aio::{
    Error,
    coro::{self, Builder, JoinError},
    op::*,
};
use common::*;
use std::{
    cell::{Cell, RefCell},
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

const SOON: Duration = Duration::from_millis(1);
const CANCELED: aio::Result<()> = Err(Error::Canceled);

fn message(panic: Box<dyn std::any::Any + std::marker::Send>) -> String {
    panic.downcast_ref::<&str>().map_or_else(|| panic.downcast_ref::<String>().unwrap().clone(), |&s| s.into())
}

#[test]
fn a_scope_ends_when_all_of_its_children_have() {
    each_runtime(|| {
        let (mut numbers, ended) = (vec![0; 20], Cell::new(0));
        coro::scope(|s| {
            for (i, number) in numbers.iter_mut().enumerate() {
                let ended = &ended;
                s.spawn(move || {
                    coro::sleep(Duration::from_micros(i as u64 * 50)).unwrap();
                    *number = i;
                    ended.set(ended.get() + 1);
                });
            }
            assert!(s.alive() > 0);
        });
        assert_eq!(ended.get(), 20);
        assert!(numbers.into_iter().eq(0..20));
        assert_eq!(coro::scope(|_| 7), 7);
    });
}

#[test]
fn children_may_spawn_siblings_and_scopes_nest() {
    each_runtime(|| {
        let count = Cell::new(0);
        coro::scope(|s| {
            let count = &count;
            s.spawn(move || {
                coro::sleep(SOON).unwrap();
                for _ in 0..10 {
                    // Its parent's scope is waiting by now.
                    s.spawn(move || {
                        coro::sleep(SOON).unwrap();
                        coro::scope(|inner| {
                            for _ in 0..3 {
                                inner.spawn(|| {
                                    coro::yield_now().unwrap();
                                    count.set(count.get() + 1);
                                });
                            }
                        });
                    });
                }
            });
        });
        assert_eq!(count.get(), 30);
    });
}

#[test]
fn a_cancelled_parent_cancels_its_children_and_waits_for_them() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            let log = RefCell::new(vec![]);
            let value = coro::scope(|s| {
                for i in 0..5 {
                    let log = &log;
                    s.spawn(move || {
                        let (a, _b) = UnixStream::pair().unwrap();
                        let first = aio::single(Recv::new(&a, &mut [0u8; 8]));
                        let shielded = coro::shield(|| coro::sleep(SOON));
                        let grandchild = coro::scope(|s| s.spawn(|| coro::sleep(NEVER)).join());
                        log.borrow_mut().push((i, first, shielded, grandchild.is_err()));
                    });
                }
                "the closure's value"
            });
            (value, log.into_inner())
        });
        coro::sleep(SOON).unwrap();
        task.cancel();
        let (value, mut log) = task.join().unwrap();
        log.sort_by_key(|entry| entry.0);
        assert_eq!(value, "the closure's value");
        assert!(log.into_iter().eq((0..5).map(|i| (i, Err(Error::Canceled), Ok(()), true))));
    });
}

#[test]
fn a_shielded_scope_of_a_cancelled_task_runs_to_its_end() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            coro::current().cancel();
            coro::shield(|| coro::scope(|s| s.spawn(|| coro::sleep(SOON)).join().unwrap()))
        });
        assert_eq!(task.join().unwrap(), Ok(()));
        // Cancelled while it waits for them.
        let task = coro::spawn(|| {
            let result = Cell::new(None);
            coro::shield(|| {
                coro::scope(|s| {
                    s.spawn(|| result.set(Some(coro::sleep(3 * SOON))));
                });
            });
            (result.get(), coro::yield_now())
        });
        task.cancel();
        assert_eq!(task.join().unwrap(), (Some(Ok(())), CANCELED));
    });
}

#[test]
fn a_child_can_be_cancelled_alone_and_all_at_once() {
    each_runtime(|| {
        coro::scope(|s| {
            let children = [(); 4].map(|()| s.spawn(|| coro::sleep(NEVER)));
            children[1].cancel();
            assert_eq!(children[1].wait(), Ok(()));
            assert_eq!(children.each_ref().map(|child| child.is_finished()), [false, true, false, false]);
            assert_eq!(s.alive(), 3);
            let later = s.spawn_with(Builder::new().later(), || ()).unwrap();
            s.cancel();
            assert!(matches!(later.join(), Err(JoinError::NeverRan)));
            assert_eq!(children.map(|child| child.join().unwrap()), [CANCELED; 4]);
            // The parent is not cancelled, nor are those that come afterwards.
            assert_eq!(s.spawn(|| coro::sleep(SOON)).join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn a_panic_of_the_closure_cancels_the_children_and_goes_on() {
    each_runtime(|| {
        let ended = Cell::new(0);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            coro::scope(|s| {
                for _ in 0..3 {
                    s.spawn(|| {
                        assert_eq!(coro::sleep(NEVER), CANCELED);
                        coro::shield(|| coro::sleep(SOON)).unwrap();
                        ended.set(ended.get() + 1);
                    });
                }
                s.spawn_with(Builder::new().later(), || ended.set(100)).unwrap();
                // Of two panics the closure's counts.
                s.spawn(|| panic!("the child's"));
                panic!("the closure's");
            })
        }));
        assert_eq!(message(unwound.map(|()| 0).unwrap_err()), "the closure's");
        assert_eq!(ended.get(), 3);
    });
}

#[test]
fn a_childs_panic_goes_on_when_all_have_ended_unless_it_was_joined() {
    each_runtime(|| {
        let ended = Cell::new(0);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            coro::scope(|s| {
                s.spawn(|| {
                    coro::sleep(SOON).unwrap();
                    panic!("nobody asked");
                });
                s.spawn(|| {
                    coro::sleep(3 * SOON).unwrap();
                    ended.set(ended.get() + 1);
                });
                ended.set(10);
            })
        }));
        assert_eq!(message(unwound.map(|()| 0).unwrap_err()), "nobody asked");
        assert_eq!(ended.get(), 11, "neither the closure nor the sibling was disturbed");

        let joined = coro::scope(|s| {
            let first = s.spawn(|| panic!("asked for"));
            let second = s.spawn(|| {
                coro::yield_now().unwrap();
                panic!("{}", 2)
            });
            [second.join(), first.join()].map(|result: Result<(), _>| result.unwrap_err().to_string())
        });
        assert_eq!(joined, ["the task panicked: 2", "the task panicked: asked for"]);

        let unwound = catch_unwind(AssertUnwindSafe(|| {
            coro::scope(|s| {
                let handle = s.spawn(|| panic!("only waited for"));
                handle.wait().unwrap();
            })
        }));
        assert_eq!(message(unwound.map(|()| 0).unwrap_err()), "only waited for");
    });
}

#[test]
fn results_of_children_that_nobody_takes_are_dropped_once() {
    each_runtime(|| {
        let drops = Drops::default();
        coro::scope(|s| {
            let one = || drops.one();
            s.spawn(one);
            let late = move || {
                coro::yield_now().unwrap();
                one()
            };
            s.spawn(late);
            let kept = s.spawn(late);
            let forgotten = s.spawn(late);
            std::mem::forget(forgotten);
            assert_eq!(drops.count(), 1);
            drop(kept.join().unwrap());
            assert_eq!(drops.count(), 3, "both that were dropped, and the one that was joined");
        });
        assert_eq!(drops.count(), 3, "one was forgotten");
    });
}

#[test]
fn a_join_that_is_interrupted_leaves_the_child_to_the_scope() {
    each_runtime(|| {
        let ended = Cell::new(false);
        coro::scope(|s| {
            let child = s.spawn(|| {
                coro::sleep(50 * SOON).unwrap();
                ended.set(true);
            });
            let joined = coro::timeout(SOON, || child.join());
            assert!(matches!(joined, Err(JoinError::Interrupted(Error::TimedOut))));
            assert!(!ended.get());
        });
        assert!(ended.get());
    });
}

#[test]
fn children_that_wait_for_one_another_are_told_of_their_deadlock() {
    each_runtime(|| {
        // The parent is told first, and cancels them.
        let results = RefCell::new(vec![]);
        coro::scope(|s| {
            for state in 0..3 {
                let results = &results;
                s.spawn(move || {
                    let result = coro::park(state);
                    results.borrow_mut().push(result);
                });
            }
        });
        assert_eq!(results.into_inner(), [CANCELED; 3]);
        assert_eq!(coro::sleep(SOON), Ok(()));
    });
}

/// What a child sees whose parent is late first, and cancelled then while the child cleans up.
fn late_then_cancelled() -> [aio::Result<()>; 2] {
    let (was_late, go) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (note, may_go) = (was_late.clone(), go.clone());
    let task = coro::spawn(move || {
        coro::timeout(SOON, || {
            let seen = Cell::new(None);
            coro::scope(|s| {
                s.spawn(|| {
                    let first = coro::sleep(NEVER);
                    note.set(true);
                    coro::shield(|| eventually("the parent is cancelled", || may_go.get()));
                    seen.set(Some([first, coro::sleep(NEVER)]));
                });
            });
            assert_eq!(coro::sleep(NEVER), CANCELED);
            seen.get().unwrap()
        })
    });
    eventually("the child is late", || was_late.get());
    task.cancel();
    coro::sleep(SOON).unwrap();
    go.set(true);
    task.join().unwrap()
}

#[test]
fn a_child_of_a_late_parent_is_late_whatever_comes_then() {
    each_runtime(|| {
        let [first, second] = late_then_cancelled();
        assert_eq!(first, Err(Error::TimedOut));
        assert!(second.is_err());
    });
}

// The children only saw `TimedOut`.
#[test]
fn a_late_parent_that_is_cancelled_cancels_its_children() {
    each_runtime(|| assert_eq!(late_then_cancelled()[1], CANCELED));
}

#[test]
fn a_thousand_children_in_a_scope_of_each_of_ten_tasks() {
    each_backend_runtime(|_| {
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                coro::spawn(|| {
                    let sum = Cell::new(0);
                    coro::scope(|s| {
                        for i in 0..1_000 {
                            let sum = &sum;
                            s.spawn(move || {
                                coro::sleep(Duration::from_micros(i % 7)).unwrap();
                                sum.set(sum.get() + i);
                            });
                        }
                    });
                    sum.get()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.join().unwrap(), 499_500);
        }
    });
}
