//! Attacks on the tasks: user code where the scheduler works, threads, forks, strange closures. They have to come to
//! nothing.

mod common;

use aio::{
    Closing, Error,
    coro::{self, Builder, JoinError, TaskLocal},
    op::*,
    windowed,
};
use common::*;
use std::{
    cell::{Cell, RefCell},
    fs::File,
    net::TcpListener,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::mpsc,
    thread,
    time::Duration,
};

const SHORT: Duration = Duration::from_millis(20);

#[track_caller]
fn each_runtime_with(change: impl Fn(coro::Config) -> coro::Config, test: impl Fn()) {
    each_engine(|engine| change(coro::Config::new().engine(engine.config)).run(&test).unwrap());
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb goes off");
    }
}

/// Runs `meanwhile` while a child of a scope is suspended, and the root waits for it; fails if the scope ends first.
#[track_caller]
fn with_a_child_that_waits(meanwhile: impl FnOnce()) {
    let ended = Cell::new(false);
    let result = catch_unwind(AssertUnwindSafe(|| {
        coro::scope(|s| {
            let builder = Builder::new().stack_size(128 << 10);
            let child = s.spawn_with(builder, || {
                coro::sleep(2 * SHORT).unwrap();
                ended.set(true);
            });
            let child = child.unwrap();
            meanwhile();
            child.join().unwrap();
        });
    }));
    if !ended.get() {
        // Going on would be undefined behaviour: the child borrows from this frame.
        std::process::abort();
    }
    result.expect("nothing of what others do gets here");
}

/// As [`each_runtime`], on a thread with room for values that are aligned to a megabyte.
#[track_caller]
fn on_a_large_stack(test: fn()) {
    let thread = thread::Builder::new().name("large".into()).stack_size(256 << 20);
    thread.spawn(move || each_runtime(test)).unwrap().join().unwrap();
}

#[test]
fn closures_of_any_size_and_alignment() {
    #[repr(align(256))]
    struct Wide(u8);
    on_a_large_stack(|| {
        for stack in [64 << 10, 256 << 10] {
            let builder = || Builder::new().stack_size(stack);
            let [a, b, c] = [[1u8; 900], [1; 900], [1; 900]];
            let large = move || a.iter().chain(&b).chain(&c).map(|n| usize::from(*n)).sum::<usize>();
            assert_eq!(builder().spawn(large).unwrap().join().unwrap(), 2700);
            assert_eq!(coro::scope(|s| s.spawn_with(builder(), large).unwrap().join().unwrap()), 2700);
            let wide = Wide(7);
            assert_eq!(builder().spawn(move || { &wide }.0).unwrap().join().unwrap(), 7);
        }
    });
}

#[test]
fn a_closure_that_is_aligned_to_more_than_its_stack_harms_nobody() {
    #[repr(align(131072))]
    struct Nothing;
    on_a_large_stack(|| {
        let spawn = |f: Box<dyn FnOnce() -> bool>| Builder::new().stack_size(32 << 10).spawn(f).unwrap();
        let others: Vec<_> = (0..100)
            .map(|_| {
                spawn(Box::new(|| {
                    let canary = std::hint::black_box([0x5Au8; 1 << 10]);
                    let _ = coro::park(1);
                    std::hint::black_box(canary).iter().all(|&byte| byte == 0x5A)
                }))
            })
            .collect();
        for _ in 0..10 {
            let nothing = Nothing;
            let task = Builder::new().stack_size(32 << 10).later().spawn(move || drop(Box::new(nothing))).unwrap();
            task.cancel();
            assert!(matches!(task.join(), Err(JoinError::NeverRan)));
        }
        for task in others {
            task.task().wake();
            assert!(task.join().unwrap(), "the stack of another task was written to");
        }
    });
}

#[test]
fn a_report_that_cannot_be_printed_harms_nobody() {
    in_own_process("a_report_that_cannot_be_printed_harms_nobody", || {
        // SAFETY: ends the process if the test hangs.
        unsafe { libc::alarm(60) };
        each_runtime(|| {
            let full = File::options().write(true).open("/dev/full").unwrap();
            let ended = Cell::new(0);
            // SAFETY: plain descriptors; standard error comes back below.
            let stderr = unsafe {
                let stderr = libc::dup(2);
                libc::dup2(full.as_raw_fd(), 2);
                stderr
            };
            let result = catch_unwind(AssertUnwindSafe(|| {
                coro::scope(|s| {
                    s.spawn(|| {
                        let result = coro::park(1);
                        ended.set(ended.get() + 1);
                        result
                    });
                });
            }));
            // SAFETY: as above.
            unsafe {
                libc::dup2(stderr, 2);
                libc::close(stderr);
            }
            if ended.get() != 1 {
                std::process::abort();
            }
            result.unwrap();
        });
    });
}

#[test]
fn what_a_thread_sends_and_no_task_can_run_is_dropped_without_harm() {
    each_runtime_with(
        |config| config.stack_size(1),
        || {
            let remote = coro::remote().unwrap();
            with_a_child_that_waits(|| {
                let bomb = Bomb;
                let sent = thread::spawn(move || remote.spawn(move || drop(bomb)).unwrap());
                coro::sleep(SHORT).unwrap();
                assert!(matches!(sent.join().unwrap().join(), Err(JoinError::NeverRan)));
            });
        },
    );
}

#[test]
fn a_closure_that_no_task_can_run_does_not_suspend_the_scheduler() {
    struct Sleeper;
    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = coro::sleep(SHORT);
            let _ = coro::yield_now();
            let _ = coro::park(3);
        }
    }
    each_runtime_with(
        |config| config.stack_size(1),
        || {
            let remote = coro::remote().unwrap();
            with_a_child_that_waits(|| {
                let sleeper = Sleeper;
                let sent = thread::spawn(move || remote.spawn(move || drop(sleeper)).unwrap());
                coro::sleep(SHORT).unwrap();
                assert!(matches!(sent.join().unwrap().join(), Err(JoinError::NeverRan)));
            });
        },
    );
}

#[test]
fn task_locals_end_with_their_task_even_if_several_panic() {
    struct Witness(Rc<Cell<u64>>);
    impl Drop for Witness {
        fn drop(&mut self) {
            self.0.set(coro::current().number());
            let _ = coro::yield_now();
        }
    }
    static FIRST: TaskLocal<Bomb> = TaskLocal::new(|| Bomb);
    static WITNESS: TaskLocal<RefCell<Option<Witness>>> = TaskLocal::new(|| RefCell::new(None));
    static SECOND: TaskLocal<Bomb> = TaskLocal::new(|| Bomb);
    each_runtime(|| {
        let seen = Rc::new(Cell::new(0));
        let mut number = 0;
        with_a_child_that_waits(|| {
            let inner = seen.clone();
            let task = coro::spawn(move || {
                coro::yield_now().unwrap();
                FIRST.with(|_| ());
                WITNESS.with(|place| *place.borrow_mut() = Some(Witness(inner)));
                SECOND.with(|_| ());
                coro::current().number()
            });
            number = task.join().unwrap();
        });
        assert_eq!(seen.get(), number, "it was dropped by somebody else");
    });
}

#[test]
fn task_locals_of_the_root_end_inside_the_runtime() {
    struct Sleeper(Rc<Cell<bool>>);
    impl Drop for Sleeper {
        fn drop(&mut self) {
            coro::sleep(SHORT).unwrap();
            self.0.set(coro::spawn(|| true).join().unwrap());
        }
    }
    static SLEEPER: TaskLocal<RefCell<Option<Sleeper>>> = TaskLocal::new(|| RefCell::new(None));
    static BOMB: TaskLocal<Bomb> = TaskLocal::new(|| Bomb);
    each_engine(|engine| {
        let slept = Rc::new(Cell::new(false));
        coro::Config::new()
            .engine(engine.config)
            .run(|| {
                SLEEPER.with(|place| *place.borrow_mut() = Some(Sleeper(slept.clone())));
                BOMB.with(|_| ());
            })
            .unwrap();
        assert!(slept.get());
    });
}

#[test]
fn a_thread_that_rings_while_an_operation_blocks_the_runtime_is_heard() {
    each_runtime(|| {
        let task = coro::spawn(|| coro::offload(|| thread::sleep(SHORT)));
        coro::no_suspend(|| aio::single(Timeout::after(3 * SHORT))).unwrap();
        task.join().unwrap().unwrap();
    });
}

#[test]
fn a_thread_that_rings_twice_while_the_runtime_does_not_switch_is_heard() {
    each_runtime(|| {
        let (sender, receiver) = mpsc::channel();
        let other = thread::spawn(move || {
            coro::run(|| {
                sender.send(coro::remote().unwrap()).unwrap();
                coro::sleep(20 * SHORT).unwrap();
            })
            .unwrap();
        });
        let far = receiver.recv().unwrap().spawn(|| coro::sleep(5 * SHORT)).unwrap();
        let (own, me) = (coro::remote().unwrap(), coro::current());
        let ringer = thread::spawn(move || {
            thread::sleep(SHORT);
            own.wake(me).unwrap();
        });
        coro::no_suspend(|| {
            aio::single(Timeout::after(3 * SHORT)).unwrap();
            far.join().unwrap().unwrap();
        });
        ringer.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_remote_that_is_made_at_the_end_of_a_runtime_is_refused_afterwards() {
    each_engine(|engine| {
        let remote = Rc::new(RefCell::new(None));
        let place = remote.clone();
        coro::Config::new()
            .engine(engine.config)
            .run(|| {
                coro::spawn(move || {
                    assert_eq!(coro::sleep(NEVER), Err(Error::Canceled));
                    *place.borrow_mut() = Some(coro::remote().unwrap());
                });
            })
            .unwrap();
        let remote = remote.take().unwrap();
        assert!(remote.spawn(|| ()).is_err());
    });
}

#[test]
fn a_tick_where_tasks_must_not_switch_runs_none() {
    struct TickOnDrop<'a, 'r>(&'a coro::Ticker<'r>);
    impl Drop for TickOnDrop<'_, '_> {
        fn drop(&mut self) {
            self.0.tick();
        }
    }
    each_engine(|engine| {
        coro::Config::new()
            .engine(engine.config)
            .embed(|ticker| {
                let task = Builder::new().later().spawn(|| ()).unwrap();
                assert!(coro::no_suspend(|| ticker.tick()).at.is_some());
                assert!(!task.is_finished());
                let panic = catch_unwind(AssertUnwindSafe(|| {
                    let _tick = TickOnDrop(ticker);
                    panic!("ticks while it unwinds");
                }));
                assert!(panic.is_err() && !task.is_finished());
                ticker.tick();
                assert!(task.is_finished());
            })
            .unwrap();
    });
}

#[test]
fn a_forked_child_does_not_drive_its_parents_runtime() {
    in_own_process("a_forked_child_does_not_drive_its_parents_runtime", || {
        const ABORTED: i32 = 128 + libc::SIGABRT;
        each_engine(|engine| {
            let config = coro::Config::new().engine(engine.config);
            // By a tick.
            config
                .clone()
                .embed(|ticker| {
                    let task = coro::spawn(|| coro::sleep(SHORT));
                    let child = fork(|| {
                        ticker.tick();
                    });
                    assert_eq!(child.wait(), ABORTED);
                    while !task.is_finished() {
                        ticker.tick();
                    }
                })
                .unwrap();
            // By what runs on the thread's stack.
            config
                .max_workers(0)
                .run(|| {
                    let task = coro::spawn(|| {
                        let code = coro::offload(|| {
                            // SAFETY: the child does nothing but go back to the scheduler.
                            match unsafe { libc::fork() } {
                                0 => -1,
                                pid => Forked(pid).wait(),
                            }
                        });
                        if code == Ok(-1) {
                            // SAFETY: ends the child.
                            unsafe { libc::_exit(7) };
                        }
                        code.unwrap()
                    });
                    let other = coro::spawn(|| coro::sleep(SHORT));
                    assert_eq!(task.join().unwrap(), ABORTED);
                    other.join().unwrap().unwrap();
                })
                .unwrap();
        });
    });
}

#[test]
fn offloaded_code_without_workers_needs_no_descriptor() {
    in_own_process("offloaded_code_without_workers_needs_no_descriptor", || {
        // SAFETY: ends the process if the test hangs.
        unsafe { libc::alarm(60) };
        each_runtime_with(
            |config| config.max_workers(0),
            || {
                let filler: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
                let value = coro::spawn(|| coro::offload(|| 7)).join();
                drop(filler);
                assert_eq!(value.unwrap(), Ok(7));
            },
        );
    });
}

#[test]
fn every_closure_of_a_group_gives_its_value_however_deep_and_late() {
    fn nested<R: 'static>(depth: u32, f: fn() -> R) -> R {
        match depth {
            0 => f(),
            _ => coro::spawn(move || nested(depth - 1, f)).join().unwrap(),
        }
    }
    each_runtime(|| {
        let race = nested(64, || {
            coro::current().cancel();
            coro::race((|| 1, || 2))
        });
        assert_eq!((race.winner, race.values), (0, (1, 2)));
    });
}

#[test]
fn a_handle_of_a_former_runtime_leads_to_no_task_of_the_next_one() {
    let former = coro::run(|| coro::spawn(|| ())).unwrap();
    coro::run(|| {
        let task = coro::spawn(|| coro::sleep(SHORT));
        assert!(!former.task().is_alive());
        former.task().cancel();
        assert_eq!(task.join().unwrap(), Ok(()));
    })
    .unwrap();
}

#[test]
fn tasks_inside_another_engine_do_not_get_lost() {
    each_runtime(|| {
        let config = aio::Config::new();
        // A child that begins inside, and one that goes on there.
        let log = RefCell::new(vec![]);
        coro::scope(|s| {
            let outer = s.spawn(|| {
                aio::single(Timeout::after(SHORT)).unwrap();
                log.borrow_mut().push("outer");
            });
            let inner = config
                .run(|| {
                    let inner = s.spawn(|| {
                        coro::timeout(NEVER, || coro::sleep(3 * SHORT)).unwrap();
                        log.borrow_mut().push("inner");
                    });
                    aio::single(Timeout::after(SHORT)).unwrap();
                    inner
                })
                .unwrap();
            assert!(!inner.is_finished());
            outer.join().unwrap();
            inner.join().unwrap();
        });
        assert_eq!(*log.borrow(), ["outer", "inner"]);
    });
}

#[test]
fn a_tick_inside_another_engine_runs_tasks_in_their_own() {
    each_engine(|engine| {
        coro::Config::new()
            .engine(engine.config)
            .embed(|ticker| {
                let task = Builder::new().later().spawn(|| coro::timeout(NEVER, || coro::sleep(SHORT))).unwrap();
                while !task.is_finished() {
                    aio::Config::new().run(|| ticker.tick()).unwrap();
                }
                assert_eq!(task.join().unwrap(), Ok(()));
            })
            .unwrap();
    });
}

#[test]
fn offloaded_code_on_the_threads_stack_is_not_the_root() {
    each_runtime_with(
        |config| config.max_workers(0),
        || {
            let me = coro::current();
            let task = coro::spawn(move || {
                coro::yield_now().unwrap();
                let inside = coro::offload(|| {
                    assert_eq!(coro::park(2), Err(Error::NoSuspend));
                    aio::single(Timeout::after(SHORT))
                });
                (inside, me.wake_if(1))
            });
            // The root is late while the code runs, and still parked after it.
            let parked = coro::timeout(Duration::ZERO, || coro::shield(|| coro::park(1)));
            assert_eq!((parked, task.join().unwrap()), (Ok(()), (Ok(Ok(())), true)));
        },
    );
}

#[test]
fn what_crosses_threads_and_what_does_not() {
    macro_rules! assert_not {
        ($bound:ident: $($t:ty),* $(,)?) => {$({
            // Ambiguous, and hence an error, if the type has the bound.
            trait Ambiguous<A> {
                fn check() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $bound> Ambiguous<u8> for T {}
            <$t as Ambiguous<_>>::check();
        })*};
    }
    fn both<T: std::marker::Send + Sync>() {}
    use std::marker::Send;
    assert_not!(Send: coro::JoinHandle<u8>, coro::StackHandle<u8>, coro::ScopedJoinHandle<'_, u8>, coro::Scope<'_, '_>,
        coro::Ticker<'_>, &coro::JoinHandle<u8>, coro::RemoteHandle<Rc<u8>>, aio::Queue<'static, u8>, aio::PooledBuf,
        aio::BufPool, aio::FixedFile, aio::FixedBuf, aio::Shared<'static>);
    assert_not!(Sync: coro::JoinHandle<u8>, coro::StackHandle<u8>, coro::ScopedJoinHandle<'_, u8>, coro::Scope<'_, '_>,
        coro::Ticker<'_>, coro::RemoteHandle<Rc<u8>>, aio::Queue<'static, u8>, aio::PooledBuf, aio::BufPool,
        aio::FixedFile, aio::FixedBuf, aio::Shared<'static>);
    both::<(coro::Remote, coro::RemoteHandle<u8>, coro::TaskId, TaskLocal<Rc<u8>>, coro::Stack, coro::CancelToken)>();
}

/// A descriptor whose `as_fd` suspends the task, starts another one, and may panic, while a batch is being lowered.
struct Suspends<'a>(&'a File, bool);

impl AsFd for Suspends<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let other = coro::spawn(coro::yield_now);
        let _ = coro::timeout(SHORT / 10, || coro::sleep(SHORT));
        let _ = other.join();
        assert!(!self.1, "no descriptor");
        self.0.as_fd()
    }
}

#[test]
fn descriptors_are_closed_once_however_an_operation_ends() {
    in_own_process("descriptors_are_closed_once_however_an_operation_ends", || {
        fn null() -> OwnedFd {
            File::open("/dev/null").unwrap().into()
        }
        fn batches() {
            let (output, _input) = pipe();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let file = File::open("Cargo.toml").unwrap();
            let mut buffer = [0u8; 8];
            _ = aio::single(Close::new(null()));
            _ = aio::complete((Read::new(&output, &mut buffer).link(), Close::new(null())));
            _ = aio::complete((Read::new(&output, &mut buffer).hard_link(), Close::new(null())));
            _ = aio::complete((Nop::new().hard_link(), Close::new(null()).link(), Close::new(null())));
            _ = aio::complete((Timeout::after(NEVER).hard_link(), OpenAt::new("Cargo.toml")));
            _ = aio::complete((Accept::new(&listener).hard_link(), OpenAt::new("Cargo.toml").link(), Nop::new()));
            for hard in [false, true] {
                let closing = Closing::opening();
                let open = OpenAt::new("Cargo.toml").open_into(&closing);
                if hard {
                    let read = Read::new(&closing, &mut buffer).hard_link();
                    _ = aio::complete((open.hard_link(), read, Close::new(&closing)));
                } else {
                    let read = Read::new(&output, &mut buffer).link();
                    _ = aio::complete((open.link(), read, Close::new(&closing)));
                }
            }
            let closing = Closing::new(null());
            _ = aio::complete((Read::new(&output, &mut buffer).hard_link(), Close::new(&closing)));
            _ = aio::complete((Nop::new(), Read::new(Suspends(&file, false), &mut buffer), Close::new(null())));
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let (mut a, mut b) = ([0u8; 8], [0u8; 8]);
                let late = Read::new(Suspends(&file, true), &mut b);
                _ = aio::complete((Close::new(null()), Read::new(&output, &mut a), late, Close::new(null())));
            }));
            assert!(panicked.is_err());
            let closes =
                (0..10).map(|i| (Timeout::after(Duration::from_micros(100 * i)).hard_link(), Close::new(null())));
            _ = aio::complete(windowed(closes, 3));
            let closes = (0..10).map(|i| if i < 7 { Close::new(null()) } else { panic!("no more") });
            // An interrupted task does not get as far as the panic.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(aio::complete(windowed(closes, 8)))));
        }
        std::panic::set_hook(Box::new(|info| {
            if !matches!(info.payload_as_str(), Some("no descriptor" | "no more")) {
                eprintln!("{info}");
            }
        }));
        // SAFETY: ends the process if the test hangs.
        unsafe { libc::alarm(120) };
        each_engine(|engine| {
            let run = |f: fn()| coro::Config::new().engine(engine.config).run(f).unwrap();
            leaks_no_descriptor(|| {
                run(|| coro::timeout(Duration::ZERO, batches));
                run(|| {
                    coro::current().cancel();
                    batches();
                });
                for micros in [50, 500, 3000] {
                    let limit = Duration::from_micros(micros);
                    coro::Config::new().engine(engine.config).run(|| coro::timeout(limit, batches)).unwrap();
                }
                run(|| {
                    let tasks: Vec<_> = (0..5).map(|_| coro::spawn(batches)).collect();
                    for task in tasks {
                        let _ = coro::sleep(Duration::from_micros(700));
                        task.cancel();
                        task.join().unwrap();
                    }
                });
                run(|| _ = coro::spawn(batches));
                run(|| {
                    let remote = coro::remote().unwrap();
                    let task = thread::spawn(move || remote.spawn(|| coro::offload(|| 7)).unwrap());
                    coro::sleep(SHORT).unwrap();
                    assert_eq!(task.join().unwrap().join().unwrap(), Ok(7));
                });
            });
        });
    });
}

#[test]
fn threads_tasks_deadlines_and_cancellation_all_at_once() {
    each_runtime_with(
        |config| config.max_workers(3).stack_size(128 << 10),
        || {
            let remote = coro::remote().unwrap();
            let threads: Vec<_> = (0..3)
                .map(|n| {
                    let remote = remote.clone();
                    thread::spawn(move || {
                        for i in 0..100 {
                            let micros = Duration::from_micros((i * 37 + n * 11) % 300);
                            let task = remote.spawn(move || coro::timeout(micros, || coro::sleep(SHORT / 20))).unwrap();
                            if i % 3 > 0 {
                                let _ = task.join().unwrap();
                            }
                        }
                    })
                })
                .collect();
            let tasks: Vec<_> = (0..50u64)
                .map(|n| {
                    coro::spawn(move || {
                        for i in 0..20 {
                            let micros = Duration::from_micros((i * 53 + n * 17) % 400);
                            let race = coro::timeout(micros, || {
                                coro::race((
                                    || coro::sleep(SHORT / 20).is_ok(),
                                    || coro::offload(move || thread::sleep(micros / 4)).is_ok(),
                                    || coro::scope(|s| s.spawn(|| coro::yield_now().is_ok()).join().is_ok()),
                                ))
                            });
                            assert!(race.winner < 3);
                            if coro::sleep(micros / 10) == Err(Error::Canceled) {
                                return;
                            }
                        }
                    })
                })
                .collect();
            for (n, task) in tasks.into_iter().enumerate() {
                if n % 5 == 0 {
                    task.cancel();
                }
                task.join().unwrap();
            }
            coro::offload(|| threads.into_iter().for_each(|thread| thread.join().unwrap())).unwrap();
        },
    );
}

#[test]
fn being_late_a_hundred_thousand_times_is_no_carelessness() {
    coro::run(|| {
        for _ in 0..200_000 {
            assert_eq!(coro::timeout(Duration::ZERO, coro::yield_now), Err(Error::TimedOut));
        }
    })
    .unwrap();
}

#[test]
fn a_forked_child_reaches_no_runtime_of_its_parent() {
    in_own_process("a_forked_child_reaches_no_runtime_of_its_parent", || {
        // SAFETY: ends the process if the test hangs; children end by themselves.
        unsafe { libc::alarm(60) };
        each_runtime(|| {
            let (remote, ran) = (coro::remote().unwrap(), Rc::new(Cell::new(false)));
            let witness = ran.clone();
            let task = coro::spawn(move || {
                witness.set(true);
                coro::sleep(SHORT)
            });
            let me = coro::current();
            let child = fork(|| {
                // SAFETY: as above.
                unsafe { libc::alarm(10) };
                assert!(remote.spawn(|| ()).is_err());
                assert!(remote.wake(me).is_err());
                assert_eq!(task.wait(), Err(Error::WrongRuntime));
                assert_eq!(coro::offload(|| 7), Ok(7));
                assert_eq!(aio::single(Timeout::after(SHORT / 20)), Ok(()));
                task.cancel();
                drop(remote.clone());
            });
            assert_eq!(child.wait(), 0);
            assert_eq!(task.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn handles_and_results_that_go_astray() {
    struct Witness<'a>(&'a Cell<u32>);
    impl Drop for Witness<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            let _ = coro::yield_now();
        }
    }
    each_runtime(|| {
        let dropped = Cell::new(0);
        let fresh = || Witness(&dropped);
        coro::scope(|s| {
            // Forgotten with its result, sent to another child, dropped before and after the end.
            std::mem::forget(s.spawn(fresh));
            let late = s.spawn(|| {
                coro::sleep(SHORT / 4).unwrap();
                // Into the parent's scope, which has begun to end.
                s.spawn(|| {
                    let _ = coro::yield_now();
                    s.spawn(fresh);
                });
                fresh()
            });
            s.spawn(move || drop(late.join()));
            drop(s.spawn(fresh));
            drop(s.spawn(|| {
                coro::yield_now().unwrap();
                fresh()
            }));
        });
        assert_eq!(dropped.get(), 4, "all but the forgotten one");
        // The arms of a race panic, and so does what cancels them.
        let result = catch_unwind(AssertUnwindSafe(|| {
            coro::race((
                || {
                    let _witness = fresh();
                    let _ = coro::yield_now();
                    panic!("one arm")
                },
                || {
                    let _witness = fresh();
                    assert_eq!(coro::sleep(NEVER), Err(Error::Canceled));
                    panic!("the other")
                },
            ));
        }));
        assert!(result.is_err() && dropped.get() == 6);
    });
}

#[test]
fn a_stack_of_the_callers_comes_back_once() {
    each_runtime(|| {
        let mut stack = coro::Stack::new(128 << 10).unwrap();
        for round in 0..50u64 {
            let task = Builder::new().on(stack).spawn(move || coro::sleep(Duration::from_micros(round)));
            if round % 3 == 0 {
                task.cancel();
            }
            let refused = catch_unwind(AssertUnwindSafe(|| {
                // The handle, and with it the stack, is lost if it cannot wait; the task goes on on it.
                let other = Builder::new().on(coro::Stack::new(64 << 10).unwrap()).spawn(coro::yield_now);
                coro::no_suspend(|| other.join().0)
            }));
            assert!(refused.is_err());
            let (result, back) =
                if round % 2 == 0 { coro::timeout(Duration::ZERO, || task.join()) } else { task.join() };
            let _ = result.unwrap();
            stack = back;
        }
        let task = Builder::new().on(stack).spawn(|| coro::sleep(NEVER));
        std::mem::forget(task);
    });
}

#[test]
fn task_locals_that_a_result_makes_when_nobody_wants_it_end_with_the_task() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            BOMB.with(|_| ());
        }
    }
    static BOMB: TaskLocal<Bomb> = TaskLocal::new(|| Bomb);
    each_runtime(|| {
        with_a_child_that_waits(|| {
            drop(coro::spawn(|| {
                coro::yield_now().unwrap();
                Late
            }));
            coro::sleep(SHORT).unwrap();
        });
    });
}
