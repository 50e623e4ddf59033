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
use std::{cell::RefCell, hint::black_box, mem, panic::catch_unwind, rc::Rc, time::Instant};

const ROUNDS: usize = 41;
const TIMES: usize = 100_000;
const TASKS: usize = 16;

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

fn bare_switches(stacks: Vec<Borrowed>) -> (f64, Vec<Borrowed>) {
    let each = TIMES / stacks.len();
    let body = move |yielder: &Yielder<(), ()>, ()| {
        for _ in 0..each {
            yielder.suspend(());
        }
    };
    let mut coroutines: Vec<_> = stacks.into_iter().map(|stack| Coroutine::with_stack(stack, body)).collect();
    let time = nanos(|| {
        let mut alive = true;
        while alive {
            for coroutine in &mut coroutines {
                alive = matches!(coroutine.resume(()), CoroutineResult::Yield(()));
            }
        }
    });
    (time, coroutines.into_iter().map(Coroutine::into_stack).collect())
}

fn switches(tasks: usize) -> f64 {
    let body = move || {
        for _ in 0..TIMES / tasks {
            coro::yield_now().unwrap();
        }
    };
    let tasks: Vec<_> = (0..tasks).map(|_| coro::Builder::new().later().spawn(body).unwrap()).collect();
    nanos(|| {
        for task in tasks {
            task.join().unwrap();
        }
    })
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

fn stacks(count: usize) -> Vec<Borrowed> {
    let stack = || {
        let stack: &'static coro::Stack = Box::leak(Box::new(coro::Stack::new(256 << 10).unwrap()));
        Borrowed(stack.base(), stack.limit())
    };
    (0..count).map(|_| stack()).collect()
}

fn main() {
    let mut one = stacks(1);
    let mut many = stacks(TASKS);
    let (mut switching, mut switching_one, mut spawning, mut keeping) = (vec![], vec![], vec![], vec![]);
    coro::run(|| {
        for _ in 0..ROUNDS {
            let bare;
            (bare, many) = bare_switches(mem::take(&mut many));
            switching.push((bare, switches(TASKS)));
            let bare;
            (bare, one) = bare_switches(mem::take(&mut one));
            switching_one.push((bare, switches(1)));
            let (bare, stack) = bare_spawns(one.remove(0));
            spawning.push((bare, spawns()));
            let (bare, stack) = kept_spawns(stack);
            keeping.push((bare, spawns()));
            one.push(stack);
        }
    })
    .unwrap();
    println!("                             twin ns/op    aio ns/op    ratio");
    report("switch, 16 tasks", switching);
    report("yield, no other task", switching_one);
    report("spawn", spawning);
    report("spawn with pool and result", keeping);
}
