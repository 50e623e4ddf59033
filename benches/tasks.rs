//! Tasks: what the scheduler adds to bare coroutines.
//!
//! The twin uses `corosensei` directly, on one stack that is used again: for a switch it resumes a coroutine that
//! suspends at once, for a spawn it makes one that ends at once. Here a switch is a `yield_now`, which goes through the
//! scheduler and its queue, and a spawn is `spawn` and `join`, with a stack of the pool and a result; a second twin of
//! that has a pool, a place for the coroutine and a result as well. Both run
//! alternately in this process, so that a drift of the machine's speed hits both; the median of the ratios counts.
//!
//! Run with `cargo bench --bench tasks`.

use aio::coro;
use corosensei::{
    Coroutine, CoroutineResult, Yielder,
    stack::{Stack as _, StackPointer},
};
use std::{cell::RefCell, hint::black_box, panic::catch_unwind, rc::Rc, time::Instant};

const ROUNDS: usize = 41;
const TIMES: usize = 100_000;

/// A stack of the twin: the memory of one of the library's, which has its guard.
struct Borrowed(StackPointer, StackPointer);

// SAFETY: both ends are those of a stack that has a guard, and that lives as long as the program.
unsafe impl corosensei::stack::Stack for Borrowed {
    fn base(&self) -> StackPointer {
        self.0
    }

    fn limit(&self) -> StackPointer {
        self.1
    }
}

fn nanos(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_nanos() as f64 / TIMES as f64
}

fn bare_switches(stack: Borrowed) -> (f64, Borrowed) {
    let mut coroutine = Coroutine::with_stack(stack, |yielder: &Yielder<(), ()>, ()| {
        for _ in 0..TIMES {
            yielder.suspend(());
        }
    });
    let time = nanos(|| while let CoroutineResult::Yield(()) = coroutine.resume(()) {});
    (time, coroutine.into_stack())
}

fn switches() -> f64 {
    let task = coro::Builder::new()
        .later()
        .spawn(|| {
            nanos(|| {
                for _ in 0..TIMES {
                    coro::yield_now().unwrap();
                }
            })
        })
        .unwrap();
    task.join().unwrap()
}

fn bare_spawns(mut stack: Borrowed) -> (f64, Borrowed) {
    let start = Instant::now();
    for i in 0..TIMES {
        let mut coroutine = Coroutine::with_stack(stack, move |_: &Yielder<(), ()>, ()| black_box(i));
        black_box(coroutine.resume(()).as_return());
        stack = coroutine.into_stack();
    }
    (start.elapsed().as_nanos() as f64 / TIMES as f64, stack)
}

/// With what a program needs that keeps more than one: a pool of stacks, a place for the coroutine, a result for
/// whoever asks, and panics that go no further.
fn kept_spawns(stack: Borrowed) -> (f64, Borrowed) {
    let mut pool = vec![stack];
    let time = nanos(|| {
        for i in 0..TIMES {
            let result = Rc::new(RefCell::new(None));
            let place = result.clone();
            let body = move |_: &Yielder<(), ()>, ()| {
                *place.borrow_mut() = Some(catch_unwind(move || black_box(i)));
            };
            let mut coroutine = Box::new(Coroutine::with_stack(pool.pop().unwrap(), body));
            let ended = coroutine.resume(()).as_return();
            assert!(ended.is_some());
            pool.push(coroutine.into_stack());
            let value = result.borrow_mut().take().unwrap().unwrap();
            black_box(value);
        }
    });
    (time, pool.pop().unwrap())
}

fn spawns() -> f64 {
    nanos(|| {
        for i in 0..TIMES {
            black_box(coro::spawn(move || black_box(i)).join().unwrap());
        }
    })
}

fn report(what: &str, mut rounds: Vec<(f64, f64)>) {
    rounds.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let (twin, own) = rounds[ROUNDS / 2];
    println!("{what:>26} {twin:>12.1} {own:>12.1} {:>8.3}", own / twin);
}

fn main() {
    let stack: &'static coro::Stack = Box::leak(Box::new(coro::Stack::new(256 << 10).unwrap()));
    let mut stack = Borrowed(stack.base(), stack.limit());
    let (mut switching, mut spawning, mut keeping) = (Vec::new(), Vec::new(), Vec::new());
    coro::run(|| {
        for _ in 0..ROUNDS {
            let (bare, back) = bare_switches(stack);
            switching.push((bare, switches()));
            let (bare_spawn, back) = bare_spawns(back);
            spawning.push((bare_spawn, spawns()));
            let (kept_spawn, back) = kept_spawns(back);
            keeping.push((kept_spawn, spawns()));
            stack = back;
        }
    })
    .unwrap();
    println!("                             twin ns/op    aio ns/op    ratio");
    report("switch", switching);
    report("spawn", spawning);
    report("spawn with pool and result", keeping);
}
