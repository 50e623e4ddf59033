//! Tasks: what the scheduler adds to bare coroutines.
//!
//! The twins use `corosensei` directly. For a switch one resumes a coroutine that suspends at once; here it is a
//! `yield_now`, which goes through the scheduler and its queue. For a spawn the bare twin makes a coroutine that ends at
//! once, on a stack that it takes from a pool and gives back; another one does so with one and the same stack, and a
//! third one has what a program needs that keeps more than one: a place for the coroutine, a result for whoever asks,
//! and panics that go no further. Here it is `spawn` and `join`. They run alternately in this process, and the fastest
//! tenth of the rounds counts; of spawns at several depths of the stack, the median.
//!
//! Run with `cargo bench --bench tasks`.

mod common;

use aio::coro;
use common::compare;
use corosensei::{
    Coroutine, CoroutineResult, Yielder,
    stack::{Stack as _, StackPointer},
};
use std::{cell::RefCell, hint::black_box, panic::catch_unwind, rc::Rc};

/// In each round, of either.
const TIMES: usize = 20_000;
const SPAWNS: usize = 4_000;
const TASKS: usize = 16;
/// Depths of the stack that spawns are measured at.
const DEPTHS: usize = 7;

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

fn bare_switches(stacks: &mut Vec<Borrowed>) {
    let each = TIMES / stacks.len();
    let body = move |yielder: &Yielder<(), ()>, ()| {
        for _ in 0..each {
            yielder.suspend(());
        }
    };
    let mut coroutines: Vec<_> = stacks.drain(..).map(|stack| Coroutine::with_stack(stack, body)).collect();
    let mut alive = true;
    while alive {
        for coroutine in &mut coroutines {
            alive = matches!(coroutine.resume(()), CoroutineResult::Yield(()));
        }
    }
    stacks.extend(coroutines.into_iter().map(Coroutine::into_stack));
}

fn switches(tasks: usize) {
    let body = move || {
        for _ in 0..TIMES / tasks {
            coro::yield_now().unwrap();
        }
    };
    let tasks: Vec<_> = (0..tasks).map(|_| coro::Builder::new().later().spawn(body).unwrap()).collect();
    for task in tasks {
        task.join().unwrap();
    }
}

fn bare_spawns(pool: &mut Vec<Borrowed>) {
    for i in 0..SPAWNS {
        let mut coroutine = Coroutine::with_stack(pool.pop().unwrap(), move |_: &Yielder<(), ()>, ()| black_box(i));
        black_box(coroutine.resume(()).as_return());
        pool.push(coroutine.into_stack());
    }
}

fn bare_spawns_on_one_stack(pool: &mut Vec<Borrowed>) {
    let mut stack = pool.pop().unwrap();
    for i in 0..SPAWNS {
        let mut coroutine = Coroutine::with_stack(stack, move |_: &Yielder<(), ()>, ()| black_box(i));
        black_box(coroutine.resume(()).as_return());
        stack = coroutine.into_stack();
    }
    pool.push(stack);
}

fn kept_spawns(pool: &mut Vec<Borrowed>) {
    for i in 0..SPAWNS {
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
}

fn spawns() {
    for i in 0..SPAWNS {
        black_box(coro::spawn(move || black_box(i)).join().unwrap());
    }
}

fn report(what: &str, (twin, own): (f64, f64)) {
    println!("{what:>28} {twin:>12.1} {own:>12.1} {:>8.3}", own / twin);
}

/// Both at several depths of the stack, of which that with the median ratio is told: where frames lie makes either up to
/// a seventh slower.
fn report_spawn(what: &str, mut twin: impl FnMut()) {
    let mut pairs: Vec<_> =
        (0..DEPTHS).map(|depth| deeper(depth, &mut || compare(SPAWNS, &mut twin, spawns))).collect();
    pairs.sort_by(|(twin, own), (twin2, own2)| (own / twin).total_cmp(&(own2 / twin2)));
    report(what, pairs[DEPTHS / 2]);
}

#[inline(never)]
fn deeper(depth: usize, f: &mut dyn FnMut() -> (f64, f64)) -> (f64, f64) {
    let frame = black_box([0u8; 208]);
    let pair = if depth == 0 { f() } else { deeper(depth - 1, f) };
    black_box(frame);
    pair
}

fn stacks(count: usize) -> Vec<Borrowed> {
    let stack = || {
        let stack: &'static coro::Stack = Box::leak(Box::new(coro::Stack::new(256 << 10).unwrap()));
        Borrowed(stack.base(), stack.limit())
    };
    (0..count).map(|_| stack()).collect()
}

fn main() {
    let (mut one, mut many) = (stacks(1), stacks(TASKS));
    println!("                               twin ns/op    aio ns/op    ratio");
    let run = coro::run(|| {
        report("switch, 16 tasks", compare(TIMES, || bare_switches(&mut many), || switches(TASKS)));
        report("yield, no other task", compare(TIMES, || bare_switches(&mut one), || switches(1)));
        report_spawn("spawn", || bare_spawns(&mut one));
        report_spawn("spawn, always the same stack", || bare_spawns_on_one_stack(&mut one));
        report_spawn("spawn, with place and result", || kept_spawns(&mut one));
    });
    run.unwrap();
}
