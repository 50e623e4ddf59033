//! Who runs when, what it costs, and batches of every kind inside tasks.

mod common;

use aio::{
    Backend, Error, Job, SetupError,
    coro::{self, Builder},
    op::*,
    windowed,
};
use common::*;
use std::{
    cell::Cell,
    os::unix::net::UnixStream,
    rc::Rc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);
/// After so long a test that looks for starvation gives up.
const STARVED: Duration = Duration::from_secs(3);

/// Runs tasks that never wait for anything but their turn until one that sleeps, and one that receives, have ended.
fn yields_until_others_have_ended(yielders: usize) {
    let (a, b) = UnixStream::pair().unwrap();
    let done = Rc::new(Cell::new(0));
    let count = |done: &Rc<Cell<i32>>| {
        let done = done.clone();
        move || done.set(done.get() + 1)
    };
    let (slept, received) = (count(&done), count(&done));
    coro::spawn(move || {
        coro::sleep(SOON).unwrap();
        aio::single(Send::new(&b, "x")).unwrap();
        slept();
    });
    coro::spawn(move || {
        assert_eq!(aio::single(Recv::new(&a, &mut [0u8; 1])), Ok(1));
        received();
    });
    let start = Instant::now();
    let tasks: Vec<_> = (0..yielders)
        .map(|_| {
            let done = done.clone();
            coro::spawn(move || {
                while done.get() < 2 && start.elapsed() < STARVED {
                    coro::yield_now().unwrap();
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    assert_eq!(done.get(), 2, "timers or sockets were starved");
}

#[test]
fn yielding_tasks_starve_neither_timers_nor_sockets() {
    each_runtime(|| yields_until_others_have_ended(1));
    each_runtime(|| yields_until_others_have_ended(100));
}

// A root that is always ready kept everybody from looking at the engine.
#[test]
fn a_root_that_yields_starves_neither_timers_nor_sockets() {
    each_runtime(|| {
        let task = coro::spawn(|| coro::sleep(SOON));
        let start = Instant::now();
        while !task.is_finished() && start.elapsed() < STARVED {
            coro::yield_now().unwrap();
        }
        assert!(task.is_finished(), "the timer was starved");
    });
}

#[test]
fn a_root_whose_operations_never_wait_starves_no_timer() {
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let task = coro::spawn(|| coro::sleep(SOON));
        let start = Instant::now();
        while !task.is_finished() && start.elapsed() < STARVED {
            assert_eq!(aio::single(Send::new(&a, "x")), Ok(1));
            assert_eq!(aio::single(Recv::new(&b, &mut [0u8; 1])), Ok(1));
        }
        assert!(task.is_finished(), "the timer was starved");
    });
}

#[test]
fn a_task_whose_operations_never_wait_starves_nobody() {
    each_runtime(|| {
        let lucky = coro::spawn(|| {
            let (a, b) = UnixStream::pair().unwrap();
            let start = Instant::now();
            while start.elapsed() < STARVED {
                if let Err(error) = aio::single(Send::new(&a, "x")) {
                    return Some(error);
                }
                assert_eq!(aio::single(Recv::new(&b, &mut [0u8; 1])).unwrap_or(1), 1);
            }
            None
        });
        coro::sleep(Duration::from_millis(3)).unwrap();
        lucky.cancel();
        // The cancellation may meet either operation.
        assert!(lucky.join().unwrap().is_none_or(|error| error == Error::Canceled));
    });
}

// On the emulation these never let anybody else run.
#[test]
fn a_window_whose_operations_never_wait_starves_nobody() {
    each_runtime(|| {
        let start = Instant::now();
        let starved = coro::timeout(SOON, || {
            let nops = std::iter::from_fn(|| (start.elapsed() < STARVED).then(Nop::new));
            let done = aio::complete(windowed(nops, 4).for_each(|_, _| ())).unwrap();
            (done.errors == 0).then_some(done.results)
        });
        assert_eq!(starved, None, "so many ran before the iterator gave up, and the deadline was not seen");
    });
}

#[test]
fn ready_tasks_run_in_turns() {
    each_runtime(|| {
        let log = Rc::new(std::cell::RefCell::new(vec![]));
        let tasks: Vec<_> = (0..5)
            .map(|i| {
                let log = log.clone();
                let body = move || {
                    for _ in 0..100 {
                        log.borrow_mut().push(i);
                        coro::yield_now().unwrap();
                    }
                };
                Builder::new().later().spawn(body).unwrap()
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert!(log.borrow().chunks(5).all(|turn| turn == [0, 1, 2, 3, 4]));
    });
}

#[test]
fn yielding_makes_no_system_call_when_nothing_is_queued() {
    each_runtime(|| {
        aio::single(Nop::new()).unwrap();
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                coro::spawn(|| {
                    coro::yield_now().unwrap();
                    let before = aio::stats();
                    for _ in 0..10_000 {
                        coro::yield_now().unwrap();
                    }
                    (aio::stats() - before).system_calls()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.join().unwrap(), 0);
        }
        let before = aio::stats();
        for _ in 0..10_000 {
            coro::yield_now().unwrap();
        }
        assert_eq!((aio::stats() - before).system_calls(), 0);
    });
}

#[test]
fn what_tasks_start_in_one_turn_goes_out_in_one_enter() {
    each_backend_runtime(|backend| {
        if backend != Backend::IoUring {
            return;
        }
        let pipes: Vec<_> = (0..64).map(|_| pipe()).collect();
        coro::scope(|s| {
            let turn = Rc::new(Cell::new(None));
            for (output, _) in &pipes {
                let turn = turn.clone();
                s.spawn_with(Builder::new().later(), move || {
                    turn.set(Some(turn.get().unwrap_or_else(aio::stats)));
                    assert_eq!(aio::single(Read::new(output, &mut [0u8; 1])), Ok(1));
                })
                .unwrap();
            }
            coro::sleep(SOON).unwrap();
            let cost = aio::stats() - turn.get().expect("they have begun");
            assert!(cost.submitted >= 64, "{cost:?}");
            assert!(cost.enters <= 3 && cost.direct == 0, "one to submit and wait, and what the timer takes: {cost:?}");
            // All of it in one batch, so that they are woken in one turn.
            let writes: Vec<_> = pipes.iter().map(|(_, input)| Write::new(input, "x")).collect();
            let before = aio::stats();
            assert_eq!(aio::complete(writes).unwrap().errors, 0);
            while s.alive() > 0 {
                coro::sleep(Duration::from_micros(100)).unwrap();
            }
            let cost = aio::stats() - before;
            assert!(cost.enters < 16, "64 tasks were woken: {cost:?}");
        });
    });
}

#[test]
fn batches_of_every_kind_suspend_the_task() {
    each_runtime(|| {
        let task = coro::spawn(move || {
            let pause = || Timeout::after(SOON);
            let mut last = coro::stats().switches;
            let mut others_ran = |what: &str| {
                // Its own resumption is one; a thread that is blocked has none.
                assert!(coro::stats().switches > last, "{what} blocked the thread");
                last = coro::stats().switches;
            };
            assert_eq!(aio::multi((pause(), Nop::new())), Ok(((), ())));
            others_ran("a tuple");
            assert_eq!(aio::multi([pause(), pause()]), Ok([(), ()]));
            others_ran("an array");
            assert_eq!(aio::multi(vec![pause(), pause(), pause()]), Ok(vec![(); 3]));
            others_ran("a Vec");
            let mut jobs: Vec<_> = (0..4).map(|_| Job::new(pause())).collect();
            assert_eq!(aio::complete(&mut jobs[..]).unwrap().errors, 0);
            assert!(jobs.iter_mut().all(|job| job.take_results() == Some(Ok(()))));
            others_ran("jobs");
            assert_eq!(aio::multi((pause().link(), pause().hard_link(), pause())), Ok(((), (), ())));
            others_ran("a chain");
            assert_eq!(aio::multi(windowed((0..10).map(|_| pause()), 3)).map(|units| units.len()), Ok(10));
            others_ran("a window");
            let pairs = (0..6).map(|_| (pause().link(), Nop::new()));
            let mut seen = 0;
            assert_eq!(aio::complete(windowed(pairs, 2).for_each(|_, _| seen += 1)).unwrap().results, 6);
            assert_eq!(seen, 6);
            others_ran("a window of chains");
        });
        task.join().unwrap();
    });
}

#[test]
fn an_iterator_and_a_callback_of_a_window_may_wait_themselves() {
    each_runtime(|| {
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                coro::spawn(|| {
                    let units = (0..20).map(|i| {
                        coro::sleep(Duration::from_micros(30)).unwrap();
                        Timeout::after(Duration::from_micros(10 * i))
                    });
                    let mut count = 0;
                    let done = aio::complete(windowed(units, 4).for_each(|_, result| {
                        coro::yield_now().unwrap();
                        count += i32::from(result.is_ok());
                    }));
                    (done.unwrap().results, count)
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.join().unwrap(), (20, 20));
        }
    });
}

#[test]
fn a_chain_that_is_too_long_and_an_empty_batch_are_errors_in_a_task() {
    each_backend_with(
        |config| config.entries(8),
        |backend| {
            let config = aio::Config::new().backend(backend).entries(8);
            let task = || {
                let empty: [Nop; 0] = [];
                assert_eq!(aio::complete(empty).map(|_| ()), Err(SetupError::EmptyBatch));
                let linked = || Nop::new().link();
                let chain =
                    (linked(), linked(), linked(), linked(), linked(), linked(), linked(), linked(), Nop::new());
                assert!(matches!(aio::complete(chain), Err(SetupError::ChainTooLong { .. })));
                assert_eq!(aio::single(Nop::new()), Ok(()));
            };
            coro::Config::new().engine(config).run(|| coro::spawn(task).join().unwrap()).unwrap();
        },
    );
}

#[test]
fn ten_thousand_timeouts_at_once() {
    each_backend_with(
        |config| config,
        |backend| {
            let config = coro::Config::new().backend(backend).entries(8).stack_size(16 << 10);
            let start = Instant::now();
            let batch = move || {
                let mut count = 0;
                let timeouts: Vec<_> = (0..10_000).map(|i| Timeout::after(Duration::from_micros(i % 3_000))).collect();
                for result in aio::complete(timeouts).unwrap().results {
                    count += i32::from(result == Ok(()));
                }
                count
            };
            config
                .run(|| {
                    assert_eq!(coro::spawn(batch).join().unwrap(), 10_000);
                    // And by as many tasks, each under a deadline of its own, which is earlier for every other one.
                    let tasks: Vec<_> = (0..5_000u64)
                        .map(|i| {
                            coro::spawn(move || {
                                let sleep = if i % 2 == 0 { NEVER } else { SOON };
                                let limit = if i % 2 == 0 { SOON } else { NEVER };
                                coro::timeout(limit, || coro::sleep(sleep))
                            })
                        })
                        .collect();
                    for (i, task) in tasks.into_iter().enumerate() {
                        assert_eq!(task.join().unwrap(), if i % 2 == 0 { Err(Error::TimedOut) } else { Ok(()) });
                    }
                })
                .unwrap();
            assert!(start.elapsed() < Duration::from_secs(30));
        },
    );
}

#[test]
fn sleeps_are_neither_cut_short_nor_spun() {
    each_runtime(|| {
        aio::single(Nop::new()).unwrap();
        let (start, before) = (Instant::now(), aio::stats());
        for _ in 0..20 {
            let each = Instant::now();
            coro::sleep(Duration::from_micros(300)).unwrap();
            assert!(each.elapsed() >= Duration::from_micros(300));
        }
        assert!(start.elapsed() < Duration::from_millis(20 * 300));
        assert!((aio::stats() - before).system_calls() <= 20 * 10, "{:?}", aio::stats() - before);
    });
}

/// Kilobytes of this process in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

#[test]
#[cfg(target_os = "linux")]
fn a_hundred_thousand_tasks_in_sequence_leave_memory_flat() {
    in_own_process("a_hundred_thousand_tasks_in_sequence_leave_memory_flat", || {
        each_backend_runtime(|backend| {
            let batch = |count: usize| {
                for i in 0..count {
                    let task = coro::spawn(move || {
                        coro::yield_now().unwrap();
                        Box::new(i)
                    });
                    if i % 3 > 0 {
                        assert_eq!(*task.join().unwrap(), i);
                    }
                }
                coro::sleep(SOON).unwrap();
            };
            batch(1_000);
            let before = resident();
            batch(100_000);
            let stats = coro::stats();
            assert_eq!((stats.spawned, stats.alive, stats.stacks.in_use), (101_000, 0, 0));
            // A leak of 64 bytes a task would be 6 MB.
            assert!(resident() < before + 5_000, "{backend}: {before} KB before, {} KB after", resident());
        });
    });
}

#[test]
fn the_counts_of_a_runtime_are_right() {
    assert_eq!(coro::stats(), coro::Stats::default());
    each_runtime(|| {
        assert_eq!((coro::stats().spawned, coro::stats().alive, coro::stats().switches), (0, 0, 0));
        let tasks: Vec<_> = (0..10).map(|_| coro::spawn(|| coro::yield_now().unwrap())).collect();
        let stats = coro::stats();
        assert_eq!((stats.spawned, stats.alive, stats.switches), (10, 10, 10));
        assert_eq!((stats.stacks.in_use, stats.stacks.free, stats.stacks.made), (10, 0, 10));
        tasks.into_iter().for_each(|task| task.join().unwrap());
        let stats = coro::stats();
        assert_eq!((stats.spawned, stats.alive, stats.switches), (10, 0, 20));
        assert_eq!((stats.stacks.in_use, stats.stacks.free, stats.stacks.made), (0, 10, 10));
        coro::spawn(|| ());
        assert_eq!((coro::stats().spawned, coro::stats().stacks.made), (11, 10), "stacks are used again");
    });
}
