//! Tasks: starting, joining, panicking, ending.

mod common;

use aio::{
    Error, SetupError,
    coro::{self, Builder, JoinError},
    op::*,
};
use common::*;
use std::{
    cell::{Cell, RefCell},
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    rc::Rc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);

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
fn a_task_that_waits_for_its_turn_has_not_run_when_spawn_returns() {
    each_runtime(|| {
        let log = Rc::new(RefCell::new(vec![]));
        let spawn = |i| {
            let log = log.clone();
            Builder::new().later().spawn(move || log.borrow_mut().push(i)).unwrap()
        };
        let tasks = [spawn(1), spawn(2), spawn(3)];
        assert!(log.borrow().is_empty());
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(*log.borrow(), [1, 2, 3], "in the order in which they were spawned");
    });
}

/// Spawns a chain of tasks, each by the one before, and tells how many began before the first spawn returned.
fn begun_at_once(depth: usize) -> (usize, usize) {
    fn next(left: usize, begun: Rc<Cell<usize>>) -> usize {
        begun.set(begun.get() + 1);
        if left == 0 { 0 } else { 1 + coro::spawn(move || next(left - 1, begun)).join().unwrap() }
    }
    let begun = Rc::new(Cell::new(0));
    let inner = begun.clone();
    let first = coro::spawn(move || next(depth, inner));
    let at_once = begun.get();
    (at_once, first.join().unwrap())
}

#[test]
fn eager_spawns_nest_64_deep_and_then_wait_for_their_turn() {
    each_runtime(|| {
        assert_eq!(begun_at_once(30), (31, 30));
        assert_eq!(begun_at_once(63), (64, 63));
        assert_eq!(begun_at_once(64), (64, 64));
        assert_eq!(begun_at_once(1_000), (64, 1_000));
        assert_eq!(begun_at_once(63), (64, 63), "the depth is back to where it was");
    });
}

#[test]
fn names_and_numbers_stay_with_their_tasks_across_switches() {
    each_runtime(|| {
        assert_eq!((coro::current().number(), coro::current().name().as_deref()), (0, Some("root")));
        let named = |name: &'static str| {
            let body = move || {
                let before = coro::current();
                for _ in 0..3 {
                    coro::sleep(Duration::from_micros(50)).unwrap();
                    assert_eq!((coro::current(), coro::current().name().as_deref()), (before, Some(name)));
                }
                // An inner task does not leave its name behind.
                coro::spawn(|| assert_eq!(coro::current().name(), None)).join().unwrap();
                assert_eq!(coro::current(), before);
                before
            };
            (name, Builder::new().name(name).spawn(body).unwrap())
        };
        let tasks = [named("a"), named("b"), named("c")];
        for (name, task) in &tasks {
            assert_eq!((task.task().name().as_deref(), task.task().is_alive()), (Some(*name), true));
        }
        for (_, task) in tasks {
            let id = task.task();
            assert_eq!(task.join().unwrap(), id);
            assert_eq!((id.name(), id.is_alive(), id.wake()), (None, false, false));
            id.cancel();
        }
        assert_eq!(coro::current().number(), 0);
    });
}

#[test]
fn numbers_are_not_used_again() {
    each_runtime(|| {
        let first = coro::spawn(coro::current).join().unwrap();
        let second = coro::spawn(coro::current).join().unwrap();
        assert_eq!((first.number(), second.number()), (1, 2));
        assert_ne!(first, second);
    });
}

/// A task that never waits leaves its record, and its stack, for the next one.
#[test]
fn nothing_of_a_task_that_never_waited_is_seen_by_the_next_one() {
    static LOCAL: coro::TaskLocal<Cell<u32>> = coro::TaskLocal::new(|| Cell::new(0));
    each_runtime(|| {
        let spent = coro::spawn(|| {
            LOCAL.with(|local| local.set(1));
            let me = coro::current();
            me.cancel();
            assert_eq!(coro::yield_now(), Err(Error::Canceled));
            me
        });
        let child = coro::timeout(Duration::ZERO, || {
            coro::scope(|s| {
                let child = s.spawn(|| assert_eq!(coro::yield_now(), Err(Error::TimedOut)));
                (child.task(), child.join().unwrap()).0
            })
        });
        let panicked = coro::spawn(|| panic_any(5));
        let ended = [spent.task(), child, panicked.task()];
        assert!(spent.is_finished() && panicked.is_finished());
        spent.cancel();
        let check = move || {
            for old in ended {
                old.cancel();
                assert!(!old.is_alive() && !old.wake() && old.name().is_none() && old != coro::current());
            }
            assert_eq!(coro::current().name(), None);
            assert_eq!(LOCAL.with(|local| local.get()), 0);
            assert_eq!(coro::dump().tasks.len(), 2, "the root and this one");
            coro::yield_now()
        };
        assert_eq!(coro::spawn(check).join().unwrap(), Ok(()));
        assert_eq!(spent.task(), ended[0]);
        assert_eq!(spent.join().unwrap(), ended[0]);
        assert!(matches!(panicked.join(), Err(JoinError::Panicked(five)) if five.is::<i32>()));
        assert_eq!((coro::stats().spawned, coro::stats().alive), (4, 0));
    });
}

/// Those of a chain that each spawn the next one: all are tasks at the same time, and some wait.
#[test]
fn records_and_stacks_of_nested_tasks_are_their_own() {
    fn nest(left: u32, waits: bool) -> (u64, u32) {
        let before = coro::current();
        let mark = [left; 64];
        let below = if left == 0 { 0 } else { coro::spawn(move || nest(left - 1, waits)).join().unwrap().1 };
        if waits && left.is_multiple_of(3) {
            coro::yield_now().unwrap();
        }
        assert_eq!((coro::current(), mark), (before, [left; 64]));
        (before.number(), below + left)
    }
    each_runtime(|| {
        for round in 0..4 {
            for waits in [false, true] {
                let first = coro::stats().spawned + 1;
                assert_eq!(coro::spawn(move || nest(20, waits)).join().unwrap(), (first, 210), "{round}");
                assert_eq!(coro::stats().alive, 0);
            }
        }
        let stacks = coro::stats().stacks;
        assert_eq!((stacks.in_use, stacks.free as u64, stacks.made), (0, 21, 21));
    });
}

#[test]
fn a_tree_of_tasks_that_spawn_join_and_sleep() {
    fn tree(depth: u32) -> u32 {
        coro::sleep(Duration::from_micros(20)).unwrap();
        if depth == 0 {
            return 1;
        }
        let children = [(); 3].map(|()| coro::spawn(move || tree(depth - 1)));
        coro::yield_now().unwrap();
        children.into_iter().map(|child| child.join().unwrap()).sum()
    }
    each_runtime(|| assert_eq!(tree(4), 81));
}

#[test]
fn a_finished_task_can_be_joined_much_later() {
    each_runtime(|| {
        let task = coro::spawn(|| String::from("kept"));
        assert!(task.is_finished());
        coro::sleep(SOON).unwrap();
        assert_eq!(task.wait(), Ok(()));
        assert_eq!(task.wait(), Ok(()));
        assert_eq!(task.join().unwrap(), "kept");
    });
}

#[test]
fn several_tasks_may_wait_for_the_end_of_one() {
    each_runtime(|| {
        let one = Rc::new(coro::spawn(|| coro::sleep(SOON)));
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let one = one.clone();
                coro::spawn(move || one.wait())
            })
            .collect();
        assert!(waiting.iter().all(|task| !task.is_finished()));
        for task in waiting {
            assert_eq!(task.join().unwrap(), Ok(()));
        }
        assert!(one.is_finished());
    });
}

#[test]
fn a_task_that_waits_for_its_own_end_is_a_deadlock() {
    each_runtime(|| {
        type Handle = coro::JoinHandle<Result<(), Error>>;
        let own: Rc<RefCell<Option<Handle>>> = Rc::default();
        let inner = own.clone();
        let task = coro::spawn(move || {
            coro::yield_now().unwrap();
            let own = inner.borrow_mut().take().unwrap();
            own.wait()
        });
        let id = task.task();
        *own.borrow_mut() = Some(task);
        coro::yield_now().unwrap();
        assert!(id.is_alive());
        assert_eq!(coro::park(0), Err(Error::Deadlock));
        id.cancel();
        coro::yield_now().unwrap();
        assert!(!id.is_alive());
    });
}

#[test]
fn dropping_a_handle_detaches_and_the_result_is_dropped_once_by_the_task() {
    each_runtime(|| {
        let (drops, inner) = (Drops::default(), Rc::new(Cell::new(None)));
        let (count, dropped_in) = (drops.clone(), inner.clone());
        let task = coro::spawn(move || {
            coro::sleep(SOON).unwrap();
            let one = count.one();
            OnDrop(move || {
                let _ = &one;
                // Waiting is possible here, for this is still the task.
                coro::yield_now().unwrap();
                dropped_in.set(Some(coro::current()));
            })
        });
        let id = task.task();
        drop(task);
        assert!(id.is_alive());
        eventually("the detached task ends", || !id.is_alive());
        assert_eq!((drops.count(), inner.get()), (1, Some(id)));
    });
}

#[test]
fn the_result_of_a_finished_task_goes_with_its_handle() {
    each_runtime(|| {
        let drops = Drops::default();
        let count = drops.clone();
        let task = coro::spawn(move || count.one());
        assert_eq!((task.is_finished(), drops.count()), (true, 0));
        drop(task);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_handle_that_outlives_the_runtime_gives_the_stored_result() {
    each_engine(|engine| {
        let (done, cut, never) = runtime(engine)
            .run(|| {
                let done = coro::spawn(|| vec![1, 2, 3]);
                let cut = coro::spawn(|| coro::sleep(NEVER));
                let never = Builder::new().later().spawn(|| ()).unwrap();
                (done, cut, never)
            })
            .unwrap();
        assert!(done.is_finished() && cut.is_finished() && never.is_finished());
        done.cancel();
        assert_eq!(done.wait(), Ok(()));
        assert_eq!(done.join().unwrap(), [1, 2, 3]);
        // Also inside another runtime.
        runtime(engine)
            .run(|| {
                assert_eq!(cut.join().unwrap(), Err(Error::Canceled));
                assert!(matches!(never.join(), Err(JoinError::NeverRan)));
            })
            .unwrap();
    });
}

// It led to whatever task of the present runtime had the same key.
#[test]
fn a_handle_of_an_earlier_runtime_does_not_lead_to_a_stranger() {
    each_engine(|engine| {
        let old = runtime(engine).run(|| coro::spawn(|| ())).unwrap();
        runtime(engine)
            .run(|| {
                let stranger = coro::spawn(|| coro::sleep(SOON));
                assert!(!old.task().is_alive());
                old.task().cancel();
                old.cancel();
                assert_eq!(stranger.join().unwrap(), Ok(()));
            })
            .unwrap();
    });
}

#[test]
fn an_id_of_an_earlier_runtime_leads_nowhere() {
    each_engine(|engine| {
        let old = runtime(engine).run(|| coro::spawn(coro::current).join().unwrap()).unwrap();
        let root = runtime(engine).run(coro::current).unwrap();
        runtime(engine)
            .run(|| {
                let stranger = coro::spawn(|| coro::park(1));
                assert_eq!((old.is_alive(), old.wake(), old.wake_if(1), old.name()), (false, false, false, None));
                old.cancel();
                root.cancel();
                assert!(stranger.task().wake());
                assert_eq!(stranger.join().unwrap(), Ok(()));
                assert_eq!(coro::yield_now(), Ok(()));
            })
            .unwrap();
    });
}

#[test]
fn a_panic_reaches_join_and_the_other_tasks_go_on() {
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let reader = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
        let sleeper = coro::spawn(|| coro::sleep(Duration::from_millis(3)));
        let early = coro::spawn(|| panic!("at once"));
        let late = coro::spawn(|| {
            coro::sleep(SOON).unwrap();
            panic!("later {}", 7)
        });
        assert_eq!(early.join().map(|()| 0).unwrap_err().to_string(), "the task panicked: at once");
        assert_eq!(late.join().map(|()| 0).unwrap_err().to_string(), "the task panicked: later 7");
        assert_eq!(aio::single(Send::new(&b, "still")), Ok(5));
        assert_eq!((reader.join().unwrap(), sleeper.join().unwrap()), (Ok(5), Ok(())));
    });
}

#[test]
fn a_panics_payload_is_delivered_as_it_was_thrown() {
    #[derive(Debug, PartialEq)]
    struct Mine(u32);
    each_runtime(|| {
        let JoinError::Panicked(payload) = coro::spawn(|| panic_any(Mine(4))).join().map(|()| 0).unwrap_err() else {
            panic!("it panicked")
        };
        assert_eq!(payload.downcast_ref(), Some(&Mine(4)));
        let again = coro::spawn(|| panic_any(Mine(5))).join().map(|()| 0).unwrap_err();
        assert_eq!(again.to_string(), "the task panicked");
        let resumed = catch_unwind(AssertUnwindSafe(|| again.resume())).map(|()| 0).unwrap_err();
        assert_eq!(resumed.downcast_ref(), Some(&Mine(5)));
    });
}

#[test]
fn a_panic_of_a_detached_task_is_nobodys_and_its_payload_is_dropped() {
    struct Payload(mpsc::Sender<()>);
    impl Drop for Payload {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            panic!("once more, while the payload is dropped");
        }
    }
    use std::sync::mpsc;
    each_runtime(|| {
        let (dropped, count) = mpsc::channel();
        drop(coro::spawn(move || {
            coro::yield_now().unwrap();
            panic_any(Payload(dropped))
        }));
        coro::sleep(SOON).unwrap();
        assert_eq!(count.try_iter().count(), 1);
        assert_eq!(coro::spawn(|| 7).join().unwrap(), 7);
    });
}

#[test]
fn parked_tasks_are_woken_by_those_who_know_their_state() {
    each_runtime(|| {
        let task = coro::spawn(|| (coro::park(1), coro::park(2)));
        let id = task.task();
        assert!(!id.wake_if(2));
        assert!(id.wake_if(1));
        // It has not run since, so it is not parked, and a wake-up is not remembered.
        assert!(!id.wake() && !id.wake_if(1) && !id.wake_if(2));
        coro::yield_now().unwrap();
        assert!(!id.wake_if(1));
        assert!(id.wake());
        assert_eq!(task.join().unwrap(), (Ok(()), Ok(())));
    });
}

#[test]
fn waking_a_task_that_waits_for_something_else_is_nothing() {
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let reader = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
        let joiner = coro::spawn(|| coro::spawn(|| coro::sleep(SOON)).join().unwrap());
        for _ in 0..10 {
            assert!(!reader.task().wake() && !joiner.task().wake());
            coro::yield_now().unwrap();
        }
        assert_eq!(aio::single(Send::new(&b, "x")), Ok(1));
        assert_eq!((reader.join().unwrap(), joiner.join().unwrap()), (Ok(1), Ok(())));
    });
}

#[test]
fn tasks_play_ping_pong_by_parking() {
    each_runtime(|| {
        let rounds = Rc::new(Cell::new(0));
        let (inner, root) = (rounds.clone(), coro::current());
        let ball = coro::spawn(move || {
            while coro::park(1).is_ok() && inner.get() < 1_000 {
                inner.set(inner.get() + 1);
                assert!(root.wake_if(2));
            }
        });
        for round in 1..=1_000 {
            assert!(ball.task().wake_if(1));
            coro::park(2).unwrap();
            assert_eq!(rounds.get(), round);
        }
        ball.cancel();
        ball.join().unwrap();
    });
}

#[test]
fn a_runtime_inside_a_runtime_is_an_error() {
    each_runtime(|| {
        assert_eq!(coro::run(|| ()), Err(SetupError::InsideRuntime));
        assert_eq!(coro::spawn(|| coro::run(|| ())).join().unwrap(), Err(SetupError::InsideRuntime));
        assert_eq!(coro::embed(|_| ()), Err(SetupError::InsideRuntime));
        assert_eq!(aio::Config::new().run(|| coro::run(|| ())).unwrap(), Err(SetupError::InsideRuntime));
        // The one there is was not disturbed.
        assert_eq!(coro::spawn(|| coro::sleep(SOON)).join().unwrap(), Ok(()));
    });
    assert_eq!(coro::run(|| 1), Ok(1));
}

#[test]
fn a_runtime_while_a_panic_unwinds_is_an_error() {
    let seen = Cell::new(None);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _guard = OnDrop(|| seen.set(Some(coro::run(|| ()))));
        panic!("unwinding");
    }));
    assert!(unwound.is_err());
    assert_eq!(seen.get(), Some(Err(SetupError::Panicking)));
}

#[test]
fn an_inner_engine_blocks_the_thread_instead_of_switching() {
    each_engine(|engine| {
        let config = engine.config;
        let inner = move || {
            let ran = Rc::new(Cell::new(false));
            let flag = ran.clone();
            let other = Builder::new().later().spawn(move || flag.set(true)).unwrap();
            let result = config.run(|| {
                let start = Instant::now();
                let result = aio::single(Timeout::after(SOON));
                assert!(start.elapsed() >= SOON);
                assert_eq!(other.wait(), Err(Error::WrongRuntime));
                assert_eq!(coro::park(0), Err(Error::WrongRuntime));
                assert!(coro::try_scope(|_| ()).is_err_and(|error| error == Error::WrongRuntime));
                result
            });
            assert_eq!((result, ran.get()), (Ok(Ok(())), false));
            other.join().unwrap();
            assert!(ran.get());
            coro::scope(|s| {
                assert_eq!(config.run(|| s.wait()).unwrap(), Ok(()), "there is no child");
                let child = s.spawn(|| (coro::sleep(SOON), coro::current().number()).0);
                // The child would be resumed where it is in no runtime.
                assert_eq!(config.run(|| s.wait()).unwrap(), Err(Error::WrongRuntime));
                assert_eq!(child.join().unwrap(), Ok(()));
            });
        };
        runtime(engine)
            .run(|| {
                inner();
                coro::spawn(inner).join().unwrap();
            })
            .unwrap();
    });
}

#[test]
fn a_deadlock_is_an_error() {
    each_runtime(|| {
        assert_eq!(coro::park(1), Err(Error::Deadlock));
        let task = coro::spawn(|| coro::park(1));
        assert_eq!(task.wait(), Err(Error::Deadlock));
        assert!(task.task().wake());
        assert_eq!(task.join().unwrap(), Ok(()));
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
fn a_thread_that_ends_after_its_runtime_can_still_do_operations() {
    type Last = Option<OnDrop<fn()>>;
    thread_local! {
        static LAST: RefCell<Last> = const { RefCell::new(None) };
    }
    each_engine(|engine| {
        let config = runtime(engine);
        let thread = std::thread::spawn(move || {
            config
                .run(|| {
                    LAST.with(|last| {
                        *last.borrow_mut() = Some(OnDrop(|| {
                            assert_eq!(aio::single(Nop::new()), Ok(()));
                            assert_eq!(coro::run(|| coro::spawn(|| coro::sleep(SOON)).join().unwrap()), Ok(Ok(())));
                        }));
                    });
                    coro::spawn(|| coro::sleep(SOON)).join().unwrap()
                })
                .unwrap()
        });
        assert_eq!(thread.join().unwrap(), Ok(()));
    });
}
