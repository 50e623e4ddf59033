//! What is known of each task and of what it is made of, and what must be true of it.

use crate::common::*;
use aio::{
    Error,
    coro::{self, JoinError, JoinHandle, TaskLocal},
};
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
};

/// What happened to a closure, a result or the payload of a panic.
#[derive(Clone, Copy, Default)]
pub struct Fate {
    /// It is a closure of a task, which was begun.
    pub ran: bool,
    pub drops: u32,
    /// The task's number and name, and whether it has deadlines of others, or may have been cancelled before.
    pub number: u64,
    pub name: Option<&'static str>,
    pub late: bool,
    pub always: bool,
    /// It made no task.
    pub refused: bool,
    pub is_task: bool,
}

#[derive(Default)]
pub struct World {
    pub fates: RefCell<Vec<Fate>>,
    /// Of all tasks that have begun.
    pub numbers: RefCell<HashSet<u64>>,
    /// Panics would end in the tasks.
    pub faults: RefCell<Vec<String>>,
    pub loose: RefCell<Vec<Box<dyn Loose>>>,
    pub tasks: Cell<u32>,
    pub here: Cell<bool>,
}

thread_local! {
    pub static WORLD: World = World::default();
}

pub static LOCAL: TaskLocal<Cell<u64>> = TaskLocal::new(|| Cell::new(0));

#[track_caller]
pub fn check(fine: bool, what: &str) {
    if !fine {
        let place = std::panic::Location::caller().line();
        WORLD.with(|world| world.faults.borrow_mut().push(format!("line {place}: {what}")));
    }
}

pub fn fate<R>(of: usize, f: impl FnOnce(&mut Fate) -> R) -> R {
    WORLD.with(|world| f(&mut world.fates.borrow_mut()[of]))
}

/// Is to be dropped once.
pub struct Token(pub usize);

impl Token {
    pub fn new() -> Token {
        WORLD.with(|world| {
            world.fates.borrow_mut().push(Fate::default());
            Token(world.fates.borrow().len() - 1)
        })
    }

    /// Of a task, which runs this first.
    pub fn begin(&self) {
        let me = coro::current();
        let fate = fate(self.0, |fate| {
            check(!fate.ran && fate.drops == 0, "a closure runs once");
            (fate.ran, fate.number) = (true, me.number());
            *fate
        });
        let new = WORLD.with(|world| world.numbers.borrow_mut().insert(me.number()));
        check(new, "each task has a number of its own");
        check(me.is_alive() && me.name().as_deref() == fate.name, "a task has no name but its own");
        check(LOCAL.with(|local| local.replace(me.number())) == 0, "task-locals are new");
        let probe = coro::no_suspend(coro::yield_now);
        let fine = probe.is_ok() || fate.always || fate.late && probe == Err(Error::TimedOut);
        check(fine, "a new task is not interrupted for another one's sake");
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        fate(self.0, |fate| fate.drops += 1);
    }
}

/// What a task is up to: the same each time, in whatever order tasks run.
pub struct Life {
    pub dice: Random,
    pub depth: u32,
    /// It must not wait, nor panic.
    pub fixed: bool,
}

impl Life {
    pub fn child(&mut self) -> Life {
        Life { dice: Random(self.dice.below(u64::MAX >> 21) + 1), depth: self.depth + 1, fixed: false }
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.dice.below(n) == 0
    }
}

/// What a closure captures besides.
pub trait Pad: Copy + PartialEq + 'static {
    const PAD: Self;
}
#[derive(Clone, Copy, PartialEq)]
#[repr(align(64))]
pub struct Aligned<T>(pub T);
/// Of no size, but aligned to more than a word.
#[derive(Clone, Copy, PartialEq)]
#[repr(align(16))]
pub struct Pairs;
impl Pad for Pairs {
    const PAD: Pairs = Pairs;
}
impl Pad for () {
    const PAD: () = ();
}
impl<const N: usize> Pad for [u64; N] {
    const PAD: [u64; N] = [7; N];
}
impl Pad for Aligned<u8> {
    const PAD: Aligned<u8> = Aligned(7);
}

/// What a task leaves.
pub trait Gift: 'static {
    fn new(life: Life) -> Self;
}
impl Gift for () {
    fn new(_: Life) {}
}
impl Gift for Token {
    fn new(_: Life) -> Token {
        Token::new()
    }
}
impl Gift for (Token, [u64; 128]) {
    fn new(_: Life) -> Self {
        (Token::new(), [7; 128])
    }
}
impl Gift for Aligned<Token> {
    fn new(_: Life) -> Self {
        Aligned(Token::new())
    }
}

/// Any handle.
pub trait Loose {
    fn join(self: Box<Self>);
    fn cancel(&self);
    fn is_finished(&self) -> bool;
}

pub struct Handle<T>(pub JoinHandle<T>, pub usize);

impl<T> Loose for Handle<T> {
    fn join(self: Box<Self>) {
        let number = self.0.task().number();
        ended(self.1, number, self.0.join());
    }

    fn cancel(&self) {
        self.0.cancel();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

#[track_caller]
pub fn ended<T>(of: usize, number: u64, result: Result<T, JoinError>) {
    let fate = fate(of, |fate| *fate);
    match result {
        Ok(_) | Err(JoinError::Panicked(_)) => check(fate.ran && fate.number == number, "it is this task's result"),
        Err(JoinError::NeverRan) => check(!fate.ran, "only a task that has not begun never runs"),
        Err(_) => return,
    }
    check(fate.drops == 1, "the closure of a task that has ended is gone");
}

/// After the runtime.
pub fn check_out(seed: u64) {
    while let Some(handle) = WORLD.with(|world| world.loose.borrow_mut().pop()) {
        check(handle.is_finished(), "no task is left");
        handle.join();
    }
    let world = WORLD.with(|world| World {
        fates: RefCell::new(world.fates.take()),
        numbers: RefCell::new(world.numbers.take()),
        faults: RefCell::new(world.faults.take()),
        ..World::default()
    });
    assert_eq!(world.faults.take(), [""; 0], "with {seed}");
    let wrong = world.fates.take().into_iter().position(|fate| fate.drops != 1);
    assert_eq!(wrong, None, "with {seed}, what was made is dropped once");
}
