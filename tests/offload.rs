//! Blocking code on threads.

mod common;

use aio::{
    Error,
    coro::{self, CancelToken},
    op::*,
};
use common::*;
use std::{
    cell::Cell,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);

fn until_canceled(token: &CancelToken) -> bool {
    let start = Instant::now();
    while !token.is_canceled() && start.elapsed() < Duration::from_secs(10) {
        thread::yield_now();
    }
    token.is_canceled()
}

/// Runs a test with workers, and with none.
#[track_caller]
fn with_and_without_workers(test: impl Fn(usize)) {
    each_backend(|backend| {
        for workers in [4, 0] {
            coro::Config::new().backend(backend).max_workers(workers).run(|| test(workers)).unwrap();
        }
    });
}

#[test]
fn offloaded_code_borrows_and_gives_a_value() {
    with_and_without_workers(|workers| {
        let home = thread::current().id();
        let (mut numbers, text) = (vec![3, 1, 2], String::from("text"));
        let given = coro::offload(|| {
            numbers.sort_unstable();
            (text.len(), thread::current().id())
        });
        assert_eq!(given.map(|(len, at)| (len, at == home)), Ok((4, workers == 0)));
        assert_eq!(numbers, [1, 2, 3]);
        let at = coro::spawn(|| coro::offload(|| thread::current().id())).join().unwrap().unwrap();
        assert_eq!(at == home, workers == 0);
    });
    assert_eq!(coro::offload(|| thread::current().id()), Ok(thread::current().id()), "outside a runtime it just runs");
}

#[test]
fn other_tasks_go_on_meanwhile() {
    each_runtime(|| {
        let (go, start) = (AtomicBool::new(false), Instant::now());
        coro::scope(|s| {
            s.spawn(|| {
                coro::sleep(SOON).unwrap();
                go.store(true, Ordering::Relaxed);
            });
            let went = coro::offload(|| {
                while !go.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(10) {
                    thread::yield_now();
                }
                go.load(Ordering::Relaxed)
            });
            assert_eq!(went, Ok(true));
        });
    });
}

#[test]
fn a_panic_goes_on_in_the_caller() {
    with_and_without_workers(|_| {
        let panics = || coro::offload(|| panic!("on a thread"));
        let unwound = catch_unwind(AssertUnwindSafe(panics)).map(|_: aio::Result<()>| ()).unwrap_err();
        assert_eq!(unwound.downcast_ref(), Some(&"on a thread"));
        let task = coro::spawn(move || panics().unwrap());
        assert_eq!(task.join().map(|()| 0).unwrap_err().to_string(), "the task panicked: on a thread");
        assert_eq!(coro::offload(|| 1), Ok(1), "the worker lives on");
    });
}

#[test]
fn a_cancelled_task_waits_for_its_code_and_its_token_tells() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            let told = coro::offload_with(until_canceled);
            (told, coro::yield_now())
        });
        coro::sleep(SOON).unwrap();
        assert!(!task.is_finished());
        task.cancel();
        assert_eq!(task.join().unwrap(), (Ok(true), Err(Error::Canceled)));
        // A worker that begins too late does not begin at all.
        let mut limit = SOON;
        let told = loop {
            match coro::timeout(limit, || coro::offload_with(until_canceled)) {
                Err(Error::TimedOut) if limit < NEVER => limit *= 2,
                told => break told,
            }
        };
        assert_eq!(told, Ok(true));
        // Not if the task is shielded.
        let task = coro::spawn(|| {
            coro::shield(|| {
                coro::offload_with(|token| {
                    thread::sleep(5 * SOON);
                    token.is_canceled()
                })
            })
        });
        task.cancel();
        assert_eq!(task.join().unwrap(), Ok(false));
    });
}

// The worker's wake-up was refused once the runtime had begun to end.
#[test]
fn the_end_of_the_runtime_tells_the_token_and_waits() {
    in_own_process("the_end_of_the_runtime_tells_the_token_and_waits", || {
        die_after(15);
        each_engine(|engine| {
            let offload = || coro::spawn(|| coro::offload_with(until_canceled));
            let tasks = runtime(engine).run(|| [(); 3].map(|()| offload())).unwrap();
            assert_eq!(tasks.map(|task| task.join().unwrap()), [Ok(true); 3]);
        });
    });
}

#[test]
fn a_cancelled_or_late_task_starts_nothing() {
    with_and_without_workers(|_| {
        let ran = AtomicBool::new(false);
        let late = coro::timeout(Duration::ZERO, || coro::offload(|| ran.store(true, Ordering::Relaxed)));
        assert_eq!((late, ran.load(Ordering::Relaxed)), (Err(Error::TimedOut), false));
        let task = coro::spawn(|| {
            coro::current().cancel();
            coro::offload(|| panic!("it is not to run"))
        });
        assert_eq!(task.join().unwrap(), Err::<(), _>(Error::Canceled));
    });
}

#[test]
fn no_more_threads_than_allowed_run_at_once() {
    each_backend(|backend| {
        let (now, most, threads) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let job = || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(2 * SOON);
            now.fetch_sub(1, Ordering::SeqCst);
            threads.lock().unwrap().push(thread::current().id());
        };
        let config = coro::Config::new().backend(backend).max_workers(2);
        config.run(|| coro::gather((0..20).map(|_| || coro::offload(job).unwrap()).collect::<Vec<_>>())).unwrap();
        assert_eq!((now.into_inner(), most.into_inner()), (0, 2));
        let mut threads = threads.into_inner().unwrap();
        assert_eq!(threads.len(), 20);
        threads.sort_unstable_by_key(|id| format!("{id:?}"));
        threads.dedup();
        assert!(threads.len() <= 2);
    });
}

#[test]
fn without_workers_the_code_runs_on_the_threads_own_stack() {
    each_backend(|backend| {
        let config = coro::Config::new().backend(backend).max_workers(0).stack_size(16 << 10);
        config
            .run(|| {
                let task = coro::spawn(|| {
                    coro::offload(|| {
                        // More than the task has.
                        let large = std::hint::black_box([1u8; 200 << 10]);
                        large.iter().map(|&byte| usize::from(byte)).sum::<usize>()
                    })
                });
                assert_eq!(task.join().unwrap(), Ok(200 << 10));
                let many: Vec<_> = (0..100usize).map(|i| move || coro::offload(move || i).unwrap()).collect();
                assert!(coro::gather(many).into_iter().eq(0..100));
            })
            .unwrap();
    });
}

#[test]
fn operations_and_offloads_inside_offloaded_code_block_its_thread() {
    with_and_without_workers(|_| {
        let task = coro::spawn(|| {
            coro::offload(|| {
                assert_eq!(aio::single(Timeout::after(SOON)), Ok(()));
                let (a, b) = UnixStream::pair().unwrap();
                assert_eq!(aio::multi((Recv::new(&a, &mut [0u8; 4]), Send::new(&b, "x"))), Ok((1, 1)));
                let here = thread::current().id();
                coro::offload(|| coro::offload(|| thread::current().id() == here).unwrap()).unwrap()
            })
        });
        assert_eq!(task.join().unwrap(), Ok(true));
    });
}

// Jobs ran under the root's deadlines, and were cancelled with it.
#[test]
fn offloaded_code_is_not_under_the_roots_deadline() {
    with_and_without_workers(|workers| {
        let result = Cell::new(None);
        coro::timeout(SOON, || {
            coro::scope(|s| {
                let result = &result;
                // A shield of its own keeps the limit off the child.
                s.spawn(move || {
                    coro::shield(|| {
                        coro::sleep(5 * SOON).unwrap();
                        result.set(Some(coro::offload(|| aio::single(Timeout::after(SOON)))));
                    });
                });
            });
        });
        assert_eq!(result.get(), Some(Ok(Ok(()))), "{workers} workers");
    });
}

#[test]
fn code_that_is_offloaded_where_tasks_must_not_switch_just_runs() {
    with_and_without_workers(|_| {
        let home = thread::current().id();
        assert_eq!(coro::no_suspend(|| coro::offload(|| thread::current().id())), Ok(home));
        let seen = Cell::new(None);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _guard = OnDrop(|| seen.set(Some(coro::offload(|| thread::current().id()))));
            panic!("unwinding");
        }));
        assert_eq!((unwound.is_err(), seen.get()), (true, Some(Ok(home))));
    });
}

#[test]
fn idle_workers_leave() {
    in_own_process("idle_workers_leave", || {
        each_backend(|backend| {
            let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
            let config = coro::Config::new().backend(backend).worker_idle(2 * SOON);
            config
                .run(|| {
                    let before = threads();
                    let job = || coro::offload(|| thread::sleep(5 * SOON)).unwrap();
                    coro::gather([job, job, job]);
                    eventually("idle workers leave", || threads() <= before);
                    assert_eq!(coro::offload(|| 1), Ok(1));
                })
                .unwrap();
        });
    });
}

#[test]
fn many_offloads_from_many_tasks() {
    each_backend_runtime(|_| {
        let sum = AtomicUsize::new(0);
        let jobs: Vec<_> = (0..500)
            .map(|i| {
                let sum = &sum;
                move || {
                    for _ in 0..4 {
                        coro::offload(|| sum.fetch_add(i, Ordering::Relaxed)).unwrap();
                    }
                }
            })
            .collect();
        coro::gather(jobs);
        assert_eq!(sum.into_inner(), 4 * 499 * 500 / 2);
    });
}

// The task spun, and never let the thread's own stack run the job.
#[test]
fn without_workers_and_descriptors_it_still_ends() {
    let name = "without_workers_and_descriptors_it_still_ends";
    in_own_process(name, || {
        die_after(10);
        let config = coro::Config::new().backend(aio::Backend::Poll).max_workers(0);
        let result = config.run(|| {
            // SAFETY: a plain value.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 0, rlim_max: 64 }) };
            let result = coro::spawn(|| coro::offload(|| 7)).join().unwrap();
            // SAFETY: as above.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 64, rlim_max: 64 }) };
            result
        });
        assert_eq!(result, Ok(Ok(7)));
    });
}
