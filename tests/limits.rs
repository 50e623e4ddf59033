//! Where tasks cannot be switched: while a panic unwinds, inside `no_suspend`, in user code that the library calls, and
//! in forked processes.

mod common;

use aio::{
    Error,
    coro::{self, Builder},
    op::*,
};
use common::*;
use std::{
    cell::{Cell, RefCell},
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);

/// Calls `f` in a destructor while a panic unwinds.
fn while_panicking<R>(f: impl FnOnce() -> R) -> R {
    let (mut f, mut result) = (Some(f), None);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _guard = OnDrop(|| result = f.take().map(|f| f()));
        panic!("unwinding");
    }));
    assert!(unwound.is_err());
    result.unwrap()
}

/// Runs a test in the root, and in a task.
#[track_caller]
fn in_root_and_task(test: fn()) {
    each_runtime(|| {
        test();
        coro::spawn(test).join().unwrap();
    });
}

/// A task that counts how often it has its turn.
fn counter() -> (Rc<Cell<u32>>, coro::JoinHandle<()>) {
    let count = Rc::new(Cell::new(0));
    let inner = count.clone();
    let body = move || {
        while coro::yield_now().is_ok() {
            inner.set(inner.get() + 1);
        }
    };
    (count, coro::spawn(body))
}

fn operations_work() {
    let (file, (a, b)) = (file_with(b"abc"), UnixStream::pair().unwrap());
    let (mut x, mut y) = ([0u8; 3], [0u8; 2]);
    let done = aio::multi((
        (Read::new(&file, &mut x).at(0), OpenAt::new("Cargo.toml")),
        (Timeout::after(SOON).link(), Send::new(&b, "hi")),
        Recv::new(&a, &mut y),
    ));
    assert!(done.is_ok(), "{done:?}");
    assert_eq!((&x, &y), (b"abc", b"hi"));
    let sleeps = (0..5).map(|_| Timeout::after(Duration::from_micros(50)));
    assert_eq!(aio::multi(aio::windowed(sleeps, 2)).map(|units| units.len()), Ok(5));
    assert_eq!(coro::sleep(SOON), Ok(()));
    assert_eq!(coro::yield_now(), Ok(()));
}

fn waits_are_refused() {
    let task = Builder::new().later().spawn(|| ()).unwrap();
    assert_eq!(task.wait(), Err(Error::NoSuspend));
    assert_eq!(coro::park(1), Err(Error::NoSuspend));
    assert!(coro::try_scope(|_| ()).is_err_and(|error| error == Error::NoSuspend));
}

#[test]
fn while_a_panic_unwinds_operations_block_and_waits_are_refused() {
    in_root_and_task(|| {
        let (count, task) = counter();
        let before = count.get();
        let spawned = while_panicking(|| {
            operations_work();
            waits_are_refused();
            let ran = Rc::new(Cell::new(false));
            let inner = ran.clone();
            let spawned = coro::spawn(move || inner.set(true));
            assert!(!ran.get() && !spawned.is_finished(), "it only waits for its turn");
            let done = coro::spawn(|| ());
            assert_eq!(coro::offload(|| 7), Ok(7));
            done.cancel();
            spawned
        });
        assert_eq!(count.get(), before, "no other task ran");
        spawned.join().unwrap();
        assert!(count.get() > before || before == 0);
        task.cancel();
        task.join().unwrap();
    });
}

#[test]
fn a_task_that_unwinds_for_good_does_its_operations_on_the_way() {
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let task = coro::spawn(move || {
            let _goodbye = OnDrop(|| {
                assert_eq!(coro::sleep(SOON), Ok(()));
                assert_eq!(aio::single(Send::new(&a, "bye")), Ok(3));
            });
            coro::yield_now().unwrap();
            panic!("ends");
        });
        assert_eq!(aio::single(Recv::new(&b, &mut [0u8; 8])), Ok(3));
        assert!(task.join().is_err());
    });
}

#[test]
fn a_scope_that_is_left_by_a_panic_waits_for_its_children_all_the_same() {
    each_runtime(|| {
        let ended = Cell::new(false);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            coro::scope(|s| {
                s.spawn(|| {
                    let _late = coro::sleep(NEVER);
                    while_panicking(operations_work_shielded);
                    ended.set(true);
                });
                panic!("the parent's");
            })
        }));
        assert!(unwound.is_err() && ended.get());
    });
}

fn operations_work_shielded() {
    coro::shield(operations_work);
}

#[test]
fn inside_no_suspend_operations_block_and_waits_are_refused() {
    in_root_and_task(|| {
        let (count, task) = counter();
        let before = count.get();
        let spawned = coro::no_suspend(|| {
            operations_work();
            waits_are_refused();
            coro::no_suspend(operations_work);
            waits_are_refused();
            let spawned = coro::spawn(|| 5);
            assert!(!spawned.is_finished());
            spawned
        });
        assert_eq!(count.get(), before, "no other task ran");
        assert_eq!(spawned.join().unwrap(), 5);
        let unwound = catch_unwind(|| coro::no_suspend(|| panic!("inside")));
        assert!(unwound.is_err());
        assert_eq!(coro::spawn(|| coro::sleep(SOON)).join().unwrap(), Ok(()), "it ends with its closure");
        task.cancel();
        task.join().unwrap();
    });
    assert_eq!(coro::no_suspend(|| 7), 7);
}

#[test]
fn what_is_finished_can_be_joined_anywhere() {
    each_runtime(|| {
        let tasks = [(); 3].map(|()| coro::spawn(|| 5));
        let [a, b, c] = tasks;
        assert_eq!(coro::no_suspend(|| a.join().unwrap()), 5);
        assert_eq!(while_panicking(|| b.join().unwrap()), 5);
        assert_eq!(aio::Config::new().run(|| c.join().unwrap()), Ok(5));
    });
}

#[test]
fn outside_a_runtime_waits_are_refused_and_operations_block() {
    let start = Instant::now();
    assert_eq!(coro::sleep(SOON), Ok(()));
    assert!(start.elapsed() >= SOON);
    assert_eq!((coro::yield_now(), coro::park(1)), (Ok(()), Err(Error::WrongRuntime)));
    assert!(coro::try_scope(|_| ()).is_err_and(|error| error == Error::WrongRuntime));
    assert!(catch_unwind(|| coro::spawn(|| ())).is_err());
    assert!(catch_unwind(coro::current).is_err());
    assert!(catch_unwind(|| coro::timeout(SOON, || ())).is_err());
}

#[test]
fn what_is_called_outside_a_runtime_says_where_it_belongs() {
    static LOCAL: coro::TaskLocal<u8> = coro::TaskLocal::new(|| 0);
    let calls: [(&str, &dyn Fn()); 9] = [
        ("spawn", &|| drop(coro::spawn(|| ()))),
        ("scope", &|| coro::scope(|_| ())),
        ("gather", &|| _ = coro::gather((|| (), || ()))),
        ("race", &|| _ = coro::race((|| (), || ()))),
        ("timeout", &|| coro::timeout(SOON, || ())),
        ("shield", &|| coro::shield(|| ())),
        ("current", &|| _ = coro::current()),
        ("dump", &|| drop(coro::dump())),
        ("TaskLocal", &|| LOCAL.with(|_| ())),
    ];
    for (name, call) in calls {
        let payload = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.unwrap_or_else(|| (*payload.downcast_ref::<&str>().unwrap()).to_owned());
        assert!(text.contains("outside a runtime") && text.contains("inside coro::run"), "{name}: {text}");
    }
    let text = coro::park(1).unwrap_err().to_string();
    assert!(text.contains("inside coro::run") && text.contains("sync::shared"), "{text}");
}

/// A file whose `as_fd` does something first.
struct Asking<'f, F: Fn()>(&'f File, F);

impl<F: Fn()> AsFd for Asking<'_, F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (self.1)();
        self.0.as_fd()
    }
}

#[test]
fn a_task_may_wait_in_as_fd_while_its_batch_is_half_submitted() {
    each_runtime(|| {
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                coro::spawn(|| {
                    let ((output, input), file) = (pipe(), file_with(b"abcd"));
                    let (mut x, mut y, mut z) = ([0u8; 4], [0u8; 4], [0u8; 2]);
                    let asking = Asking(&file, || {
                        coro::sleep(SOON).unwrap();
                        coro::yield_now().unwrap();
                        // The first one of the batch that this is part of is in flight.
                        assert_eq!(aio::multi((Nop::new().link(), Write::new(&input, "abcd"))), Ok(((), 4)));
                        coro::sleep(SOON).unwrap();
                    });
                    let done = aio::multi((
                        Read::new(&output, &mut x),
                        (Nop::new().link(), Read::new(asking, &mut y).at(0).link(), Nop::new()),
                        Read::new(&file, &mut z).at(2),
                    ));
                    assert_eq!(done, Ok((4, ((), 4, ()), 2)));
                    assert_eq!((&x, &y, &z), (b"abcd", b"abcd", b"cd"));
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn a_task_that_is_cancelled_in_as_fd_ends_what_it_had_submitted() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            let ((output, _input), file) = (pipe(), file_with(b"abcd"));
            let (mut x, mut y) = ([0u8; 4], [0u8; 4]);
            let asking = Asking(&file, || assert_eq!(coro::sleep(NEVER), Err(Error::Canceled)));
            let done = aio::complete((Read::new(&output, &mut x), Read::new(asking, &mut y).at(0)));
            done.unwrap().results.0
        });
        coro::sleep(SOON).unwrap();
        task.cancel();
        assert_eq!(task.join().unwrap(), Err(Error::Canceled));
    });
}

#[test]
fn a_panic_in_as_fd_of_a_task_ends_what_is_in_flight() {
    each_runtime(|| {
        let log = Rc::new(RefCell::new(vec![]));
        let inner = log.clone();
        let other = coro::spawn(|| {
            for _ in 0..20 {
                coro::sleep(Duration::from_micros(100)).unwrap();
            }
        });
        let task = coro::spawn(move || {
            for round in 0..20 {
                let ((output, input), file) = (pipe(), file_with(b"abcd"));
                let (mut x, mut y, mut z) = ([0u8; 4], [0u8; 4], [0u8; 4]);
                let unwound = catch_unwind(AssertUnwindSafe(|| {
                    let asking = Asking(&file, || {
                        if round % 2 == 0 {
                            coro::yield_now().unwrap();
                        }
                        panic!("in as_fd");
                    });
                    let (head, tail) = (Read::new(&output, &mut x), Read::new(&output, &mut z));
                    let _ = aio::complete((head, (Nop::new().link(), Read::new(asking, &mut y)), tail));
                }));
                assert!(unwound.is_err());
                // Nothing reads from the pipe any more.
                assert_eq!(aio::multi((Write::new(&input, "abcd"), Read::new(&output, &mut y))), Ok((4, 4)));
                assert_eq!((&x, &y), (&[0u8; 4], b"abcd"));
                inner.borrow_mut().push(round);
            }
        });
        task.join().unwrap();
        other.join().unwrap();
        assert!(log.borrow().iter().copied().eq(0..20));
    });
}

#[test]
fn a_process_that_is_forked_in_a_task_has_an_engine_of_its_own() {
    in_own_process("a_process_that_is_forked_in_a_task_has_an_engine_of_its_own", || {
        each_runtime(|| {
            let (a, b) = UnixStream::pair().unwrap();
            let reader = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
            let sleeper = coro::spawn(|| coro::sleep(5 * SOON));
            let forks = || {
                coro::timeout(NEVER, || {
                    coro::yield_now().unwrap();
                    let unfinished = coro::spawn(|| coro::sleep(NEVER));
                    let child = fork(|| {
                        die_after(20);
                        operations_work();
                        assert_eq!(unfinished.wait(), Err(Error::WrongRuntime));
                        assert_eq!(coro::park(1), Err(Error::WrongRuntime));
                        assert_eq!(coro::offload(|| 3), Ok(3));
                        unfinished.cancel();
                    });
                    assert_eq!(child.wait(), 0);
                    unfinished.cancel();
                    operations_work();
                })
            };
            coro::spawn(forks).join().unwrap();
            forks();
            aio::single(Send::new(&b, "x")).unwrap();
            assert_eq!((reader.join().unwrap(), sleeper.join().unwrap()), (Ok(1), Ok(())));
        });
    });
}

#[test]
fn a_forked_process_that_comes_back_into_the_scheduler_is_aborted() {
    in_own_process("a_forked_process_that_comes_back_into_the_scheduler_is_aborted", || {
        each_runtime(|| {
            let parent = std::process::id();
            // By returning, by a panic, and by leaving a scope; in a task that has waited before, and in one that has
            // not.
            for way in 0..6 {
                let pid = Rc::new(Cell::new(0));
                let inner = pid.clone();
                let task = coro::spawn(move || {
                    if way % 2 == 0 {
                        coro::yield_now().unwrap();
                    }
                    let fork = || {
                        // SAFETY: the child is to be aborted by what it does next; the alarm ends it if it hangs.
                        inner.set(unsafe { libc::fork() });
                        if inner.get() == 0 {
                            die_after(20);
                        }
                    };
                    match way / 2 {
                        0 => fork(),
                        1 => {
                            fork();
                            assert_eq!(std::process::id(), parent, "in the child only");
                        }
                        _ => coro::scope(|s| {
                            s.spawn(|| coro::yield_now().unwrap());
                            fork();
                        }),
                    }
                });
                task.join().unwrap();
                assert_eq!(std::process::id(), parent, "the child got out of its task");
                assert_eq!(Forked(pid.get()).wait(), 128 + libc::SIGABRT, "way {way}");
            }
            assert_eq!(coro::spawn(|| coro::sleep(SOON)).join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn a_forked_process_may_leave_the_root_and_its_runtime() {
    in_own_process("a_forked_process_may_leave_the_root_and_its_runtime", || {
        each_engine(|engine| {
            let pid = runtime(engine).run(|| {
                for _ in 0..3 {
                    coro::spawn(|| coro::sleep(NEVER));
                }
                let _in_flight = coro::remote().unwrap();
                // SAFETY: the child goes on with this test's code and ends below.
                unsafe { libc::fork() }
            });
            if pid == Ok(0) {
                die_after(20);
                let worked = catch_unwind(|| {
                    operations_work();
                    assert_eq!(coro::run(|| coro::spawn(|| coro::sleep(SOON)).join().unwrap()), Ok(Ok(())));
                });
                // SAFETY: ends the child, without what belongs to the parent.
                unsafe { libc::_exit(i32::from(worked.is_err())) }
            }
            assert_eq!(Forked(pid.unwrap()).wait(), 0, "{}", engine.name);
            operations_work();
        });
    });
}
