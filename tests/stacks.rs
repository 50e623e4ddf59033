//! Stacks of tasks.
#![cfg(target_os = "linux")]

mod common;

use aio::coro::{self, Builder, Stack};
use common::*;
use std::{hint::black_box, io, time::Duration};

/// Uses `bytes` of stack, give or take a frame, and then calls `f` there.
fn deep<R>(bytes: usize, f: &dyn Fn() -> R) -> R {
    #[inline(never)]
    fn deeper<R>(start: usize, bytes: usize, f: &dyn Fn() -> R) -> R {
        let frame = black_box([1u8; 256]);
        // Frames of an unoptimised build are several times as large.
        let used = start - frame.as_ptr().addr();
        let result = if used >= bytes { f() } else { deeper(start, bytes, f) };
        black_box(&frame);
        result
    }
    let here = 0u8;
    deeper(black_box(&raw const here).addr(), bytes, f)
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn endless(depth: usize) -> usize {
    let frame = black_box([depth; 64]);
    endless(depth + 1) + frame[depth % 64]
}

#[track_caller]
fn assert_overflow(messages: &[String], task: &str, size: &str) {
    for message in messages {
        for part in [task, "overflowed its stack", size, "stack_size"] {
            assert!(message.contains(part), "{part:?} is not in\n{message}");
        }
    }
}

#[test]
fn an_overflow_names_the_task_its_size_and_the_remedy() {
    let name = "an_overflow_names_the_task_its_size_and_the_remedy";
    let messages = dies(name, libc::SIGABRT, || {
        coro::run(|| {
            coro::spawn(|| coro::sleep(NEVER));
            let body = || {
                coro::yield_now().unwrap();
                endless(0)
            };
            Builder::new().name("recursive").spawn(body).unwrap().join().unwrap();
        })
        .unwrap();
    });
    assert_overflow(&messages, "task 2 \"recursive\"", " 256 KiB");
}

#[test]
fn an_overflow_on_another_thread_and_of_another_size() {
    let name = "an_overflow_on_another_thread_and_of_another_size";
    let messages = dies(name, libc::SIGABRT, || {
        // One that has a runtime, and is not to blame.
        std::thread::spawn(|| coro::run(|| coro::sleep(NEVER)));
        let thread = std::thread::spawn(|| {
            let config = coro::Config::new().stack_size(1 << 20);
            config.run(|| Builder::new().stack_size(32 << 10).spawn(|| endless(0)).unwrap().join().unwrap()).unwrap()
        });
        thread.join().unwrap();
    });
    assert_overflow(&messages, "task 1 ", " 32 KiB");
}

#[test]
fn an_overflow_of_a_task_that_was_started_by_others_below_it() {
    let name = "an_overflow_of_a_task_that_was_started_by_others_below_it";
    let messages = dies(name, libc::SIGABRT, || {
        let innermost = || Builder::new().name("innermost").spawn(|| endless(0)).unwrap().join().unwrap();
        let middle = move || Builder::new().name("middle").spawn(innermost).unwrap().join().unwrap();
        coro::run(|| Builder::new().name("outer").spawn(middle).unwrap().join().unwrap()).unwrap();
    });
    assert_overflow(&messages, "task 3 \"innermost\"", " 256 KiB");
}

#[test]
fn an_overflow_of_the_one_below_after_the_one_above_has_ended() {
    let name = "an_overflow_of_the_one_below_after_the_one_above_has_ended";
    let messages = dies(name, libc::SIGABRT, || {
        let below = || {
            coro::spawn(|| coro::sleep(NEVER));
            coro::spawn(|| ()).join().unwrap();
            endless(0)
        };
        coro::run(|| Builder::new().name("below").spawn(below).unwrap().join().unwrap()).unwrap();
    });
    assert_overflow(&messages, "\"below\"", " 256 KiB");
}

#[test]
fn an_overflow_of_a_stack_of_the_callers() {
    let name = "an_overflow_of_a_stack_of_the_callers";
    let messages = dies(name, libc::SIGABRT, || {
        coro::run(|| {
            let stack = Stack::new(64 << 10).unwrap();
            Builder::new().name("own").on(stack).spawn(|| endless(0)).join().0.unwrap();
        })
        .unwrap();
    });
    assert_overflow(&messages, "\"own\"", " 64 KiB");
}

#[test]
fn an_overflow_without_the_report_still_ends_the_process() {
    let name = "an_overflow_without_the_report_still_ends_the_process";
    let messages = dies(name, libc::SIGSEGV, || {
        coro::Config::new().overflow_report(false).run(|| coro::spawn(|| endless(0)).join().unwrap()).unwrap();
    });
    assert!(messages.iter().all(|message| !message.contains("overflowed its stack of")));
}

/// Writes to where nothing is mapped.
fn fault() {
    // SAFETY: none; the process is to die of it.
    unsafe { black_box(std::ptr::null_mut::<u8>().wrapping_add(8)).write_volatile(1) }
}

#[test]
fn a_fault_that_is_no_overflow_ends_the_process_as_ever() {
    let name = "a_fault_that_is_no_overflow_ends_the_process_as_ever";
    let messages = dies(name, libc::SIGSEGV, || coro::run(|| coro::spawn(fault).join().unwrap()).unwrap());
    assert!(messages.iter().all(|message| !message.contains("overflow")), "{messages:?}");
}

#[test]
fn a_fault_that_is_no_overflow_goes_to_the_handler_that_was_there_before() {
    extern "C" fn mine(_: libc::c_int) {
        // SAFETY: both may be called in a handler.
        unsafe {
            libc::write(2, c"it was mine\n".as_ptr().cast(), 12);
            libc::_exit(0)
        }
    }
    let name = "a_fault_that_is_no_overflow_goes_to_the_handler_that_was_there_before";
    if std::env::var_os("AIO_TEST_CHILD").is_none() {
        // The handler ends the process before the harness can say that the test has passed.
        let output = this_test(name, "only").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("it was mine"), "{output:?}");
        return;
    }
    // SAFETY: all-zero is a valid value; the handler does what one may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = mine as *const () as usize;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
    coro::run(|| coro::spawn(fault).join().unwrap()).unwrap();
}

#[test]
fn most_of_a_stack_can_be_used() {
    each_runtime(|| {
        let tasks = [(); 3].map(|()| {
            coro::spawn(|| {
                deep(200 << 10, &|| {
                    coro::sleep(Duration::from_micros(100)).unwrap();
                    assert_eq!(aio::single(aio::op::Nop::new()), Ok(()));
                    7
                })
            })
        });
        assert_eq!(tasks.map(|task| task.join().unwrap()), [7; 3]);
        assert!(coro::stats().stacks.deepest >= 200 << 10, "{:?}", coro::stats().stacks);
        assert!(coro::stats().stacks.deepest <= 256 << 10);
    });
}

#[test]
fn each_task_may_have_a_stack_of_its_own_size() {
    each_runtime(|| {
        for (size, use_of) in [(16 << 10, 4 << 10), (100_000, 60_000), (1 << 20, 900 << 10), (8 << 20, 7 << 20)] {
            let body = move || deep(use_of, &|| coro::yield_now().unwrap());
            let tasks = [(); 2].map(|()| Builder::new().stack_size(size).spawn(body).unwrap());
            tasks.into_iter().for_each(|task| task.join().unwrap());
        }
        let stats = coro::stats().stacks;
        assert_eq!((stats.made, stats.slabs, stats.in_use, stats.free), (8, 4, 0, 8));
    });
}

#[test]
fn a_size_that_is_out_of_range_is_an_error() {
    each_runtime(|| {
        for size in [0, 1, (16 << 10) - 1, (1 << 30) + 1, usize::MAX] {
            let error = Builder::new().stack_size(size).spawn(|| ()).map(drop).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{size}");
            assert!(error.to_string().contains("16 KiB"), "{error}");
            assert_eq!(Stack::new(size).map(drop).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            coro::scope(|s| assert!(s.spawn_with(Builder::new().stack_size(size), || ()).is_err()));
        }
        assert_eq!((coro::stats().spawned, coro::stats().alive), (0, 0));
        Builder::new().stack_size(1 << 30).spawn(|| ()).unwrap().join().unwrap();
    });
    let spawned = coro::Config::new().stack_size(1).run(|| Builder::new().spawn(|| ()).is_err());
    assert_eq!(spawned, Ok(true));
}

#[test]
fn a_stack_of_the_callers_comes_back_and_can_be_used_again() {
    each_runtime(|| {
        let mut stack = Stack::new(50_000).unwrap();
        assert_eq!(stack.size() % 4096, 0);
        assert!((50_000..60_000).contains(&stack.size()));
        for i in 0..100 {
            let body = move || {
                if i % 2 == 0 {
                    coro::sleep(Duration::from_micros(10)).unwrap();
                }
                assert!(i != 50, "the fiftieth");
                i
            };
            let task = Builder::new().on(stack).spawn(body);
            let (result, back) = task.join();
            stack = back;
            assert_eq!(result.ok(), (i != 50).then_some(i));
        }
        assert_eq!(coro::stats().stacks.made, 0, "none of the pool's was taken");
        // Cancelled before it began, and while the one who waits for it is cancelled.
        let task = Builder::new().later().on(stack).spawn(|| ());
        task.cancel();
        let (result, stack) = task.join();
        assert!(matches!(result, Err(coro::JoinError::NeverRan)));
        let joiner = coro::spawn(|| {
            let task = Builder::new().on(stack).spawn(|| coro::sleep(NEVER));
            coro::current().cancel();
            let (result, stack) = task.join();
            (result.unwrap(), stack.size())
        });
        assert_eq!(joiner.join().unwrap().0, Err(aio::Error::Canceled));
    });
}

#[test]
fn a_stack_of_the_callers_that_nobody_asks_for_is_freed() {
    in_own_process("a_stack_of_the_callers_that_nobody_asks_for_is_freed", || {
        each_runtime(|| {
            let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
            let detached = |count: usize| {
                for i in 0..count {
                    let stack = Stack::new(64 << 10).unwrap();
                    let task = Builder::new().on(stack).spawn(move || {
                        if i % 2 == 0 {
                            coro::yield_now().unwrap();
                        }
                    });
                    let id = task.task();
                    drop(task);
                    eventually("it ends", || !id.is_alive());
                }
            };
            detached(10);
            let before = mappings();
            detached(200);
            assert!(mappings() <= before + 10, "{before} before, {} after", mappings());
        });
    });
}

#[test]
fn a_stack_in_memory_of_the_callers() {
    each_runtime(|| {
        const SIZE: usize = 128 << 10;
        let page = 4096;
        // SAFETY: a fresh mapping; its lower half becomes the guard.
        let memory = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(std::ptr::null_mut(), 2 * SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(start, SIZE, libc::PROT_NONE), 0);
            start.cast::<u8>()
        };
        // SAFETY: as `from_raw` asks; unmapped below when it is no longer used.
        let stack = unsafe { Stack::from_raw(memory.add(SIZE + 7), SIZE - 7) }.unwrap();
        assert!((SIZE - 32..=SIZE).contains(&stack.size()));
        let (result, stack) = Builder::new().on(stack).spawn(move || deep(SIZE - 16 * page, &coro::yield_now)).join();
        assert_eq!(result.unwrap(), Ok(()));
        drop(stack);
        // SAFETY: too small to be used at all.
        assert!(unsafe { Stack::from_raw(memory.add(SIZE), 16 << 10 >> 1) }.is_err());
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(memory.cast(), 2 * SIZE) };
    });
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

#[test]
fn stacks_give_their_memory_back_after_a_crowd() {
    in_own_process("stacks_give_their_memory_back_after_a_crowd", || {
        each_backend_runtime(|backend| {
            const CROWD: usize = 5_000;
            let crowd = || {
                let park = || deep(12 << 10, &|| coro::park(1));
                let tasks: Vec<_> = (0..CROWD).map(|_| coro::spawn(park)).collect();
                let (stats, most) = (coro::stats(), resident());
                assert_eq!((stats.alive, stats.stacks.in_use, stats.stacks.free), (CROWD, CROWD, 0));
                assert!((12 << 10..64 << 10).contains(&stats.stacks.deepest), "{:?}", stats.stacks);
                assert!(stats.stacks.slabs < 20, "{:?}", stats.stacks);
                tasks.iter().for_each(|task| task.cancel());
                tasks.into_iter().for_each(|task| assert!(task.join().unwrap().is_err()));
                most
            };
            let most = crowd();
            let stats = coro::stats().stacks;
            assert_eq!((stats.in_use, stats.free, stats.made), (0, CROWD, CROWD as u64));
            assert!(stats.trimmed as usize >= CROWD - 200, "{stats:?}");
            // Each had 12 KiB at least.
            assert!(resident() + CROWD * 8 < most, "{backend}: {most} KB at most, {} KB now", resident());
            assert!(stats.deepest >= 12 << 10, "the high-water mark is remembered: {stats:?}");
            // The cold ones work again.
            crowd();
            assert_eq!(coro::stats().stacks.made, CROWD as u64);
        });
    });
}

#[test]
fn the_hot_ends_of_stacks_fall_into_different_cache_sets() {
    each_runtime(|| {
        let address = || {
            let local = 0u8;
            let address = black_box(&raw const local).addr();
            coro::yield_now().unwrap();
            address
        };
        let tasks: Vec<_> = (0..64).map(|_| coro::spawn(address)).collect();
        let mut sets: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap() % 4096 / 64).collect();
        sets.sort_unstable();
        sets.dedup();
        assert_eq!(sets.len(), 16);
    });
}

#[test]
fn a_panic_with_its_message_fits_into_a_small_stack() {
    each_runtime(|| {
        let panics = || {
            coro::yield_now().unwrap();
            panic!("{} on a small stack", 1)
        };
        let task = Builder::new().stack_size(64 << 10).spawn(panics).unwrap();
        assert!(task.join().map(|()| 0).unwrap_err().to_string().ends_with("1 on a small stack"));
    });
}
