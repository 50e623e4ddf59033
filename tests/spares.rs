//! Tasks of all kinds at random, so that records, stacks and coroutines pass from one to another in many ways: what each
//! is made of is run or dropped once, what each leaves arrives or is dropped once, and nothing of one is seen by the next.

mod common;
#[path = "spares/world.rs"]
mod world;

use aio::{
    Backend, Error,
    coro::{self, Builder, JoinError, Stack, TaskLocal},
};
use common::*;
use std::{
    cell::{Cell, RefCell},
    hint::black_box,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};
use world::*;

/// Tasks that one may be below, each having spawned the next.
const DEEPEST: u32 = 6;
/// After so many no new ones are begun, so that a round ends.
const TASKS: u32 = 250;

static LEGACY: TaskLocal<RefCell<Option<Heir>>> = TaskLocal::new(RefCell::default);

/// Spawns a task when it is dropped.
struct Heir {
    _token: Token,
    life: Life,
}
impl Gift for Heir {
    fn new(life: Life) -> Heir {
        Heir { _token: Token::new(), life }
    }
}
impl Drop for Heir {
    fn drop(&mut self) {
        // A handle may be dropped after its runtime.
        if LOCAL.try_with(|_| ()).is_ok() {
            self.life.fixed = true;
            spawn(&mut self.life);
        }
    }
}

/// A task's closure, and its token's index.
fn work<P: Pad, G: Gift>(mut life: Life, about: Fate) -> (usize, impl FnOnce() -> G) {
    WORLD.with(|world| world.tasks.set(world.tasks.get() + 1));
    let (token, pad) = (Token::new(), P::PAD);
    let of = token.0;
    fate(of, |fate| *fate = Fate { is_task: true, ..about });
    let f = move || {
        let (pad, token) = (black_box(pad), token);
        check((&raw const pad).is_aligned(), "what a closure captures is aligned");
        token.begin();
        let child = life.child();
        live(life);
        check(pad == P::PAD, "a task's stack is its own");
        G::new(child)
    };
    (of, f)
}

/// What a task does.
fn live(mut life: Life) {
    let me = coro::current();
    let mark = black_box([me.number(); 32]);
    for _ in 0..life.dice.below(4) {
        act(&mut life);
        check(coro::current() == me && black_box(mark) == [me.number(); 32], "a task stays itself");
        check(LOCAL.with(Cell::get) == me.number(), "task-locals stay with their task");
    }
    if life.one_in(8) {
        resume_unwind(Box::new(Token::new()));
    }
}

fn spawn(life: &mut Life) {
    if life.depth >= DEEPEST || WORLD.with(|world| world.tasks.get()) >= TASKS {
        return;
    }
    match life.dice.below(7) {
        0 => spawn_as::<(), ()>(life),
        1 => spawn_as::<[u64; 1], Token>(life),
        2 => spawn_as::<[u64; 8], (Token, [u64; 128])>(life),
        3 => spawn_as::<[u64; 80], Aligned<Token>>(life),
        4 => spawn_as::<Aligned<u8>, Heir>(life),
        5 => spawn_as::<Pairs, Token>(life),
        _ => spawn_as::<(), Token>(life),
    }
}

fn spawn_as<P: Pad, G: Gift>(life: &mut Life) {
    let kind = life.dice.below(14);
    let name = matches!(kind, 0 | 4).then_some("named");
    let (of, f) = work::<P, G>(life.child(), Fate { name, refused: kind == 6, ..Fate::default() });
    let builder = match kind {
        0 => Builder::new().name("named"),
        1 => Builder::new().stack_size(200 << 10),
        2 => Builder::new().stack_size(256 << 10),
        3 => Builder::new().later(),
        4 => Builder::new().later().name("named"),
        5 if !life.fixed => {
            let handle = Builder::new().on(Stack::new(256 << 10).unwrap()).spawn(f);
            if life.one_in(2) {
                let number = handle.task().number();
                ended(of, number, handle.join().0);
            }
            return;
        }
        6 => {
            check(Builder::new().stack_size(1).spawn(f).is_err(), "there is no stack of one byte");
            return check(fate(of, |fate| !fate.ran && fate.drops == 1), "a closure that is not taken is dropped");
        }
        _ => Builder::new(),
    };
    let handle = Box::new(Handle(builder.spawn(f).unwrap(), of));
    if life.one_in(5) {
        handle.cancel();
    }
    match life.dice.below(4) {
        0 => {}
        1 => WORLD.with(|world| world.loose.borrow_mut().push(handle)),
        _ if life.fixed => WORLD.with(|world| world.loose.borrow_mut().push(handle)),
        _ => handle.join(),
    }
}

/// Anything that a task may do.
fn act(life: &mut Life) {
    // Where it must not wait, it only spawns.
    match if life.fixed { 0 } else { life.dice.below(26) } {
        0..=7 => spawn(life),
        8 => (0..life.dice.below(4)).for_each(|_| _ = coro::yield_now()),
        9 => _ = coro::sleep(Duration::from_nanos(1)),
        10..=11 => family(life),
        12 => coro::no_suspend(|| fixed(life)),
        13 => drop(OnDrop(|| fixed(life))),
        14 => {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let _spawns = OnDrop(|| fixed(life));
                resume_unwind(Box::new(Token::new()))
            }));
            check(unwound.is_err_and(|payload: Box<dyn std::any::Any + Send>| payload.is::<Token>()), "it panics");
        }
        15 => {
            let heir = Heir::new(life.child());
            LEGACY.with(|legacy| drop(legacy.replace(Some(heir))));
        }
        16 if coro::current().number() > 0 => coro::current().cancel(),
        17 => {
            _ = coro::offload(|| {
                WORLD
                    .with(|world| world.here.get())
                    .then(|| fixed(&mut Life { dice: Random(5), depth: 4, fixed: true }))
            })
        }
        18 => group(life),
        19 => remote(life),
        20 if life.one_in(3) => chain(70, life.child()),
        21 => _ = WORLD.with(|world| world.loose.borrow_mut().pop()).inspect(|handle| handle.cancel()),
        22 => coro::timeout(Duration::ZERO, || spawn(life)),
        23 => coro::shield(|| spawn(life)),
        24 => aio::Config::new()
            .backend(Backend::Poll)
            .run(|| check(coro::park(1).is_err(), "there are no tasks"))
            .unwrap(),
        _ => bare(),
    }
}

/// Spawns where nothing can wait.
fn fixed(life: &mut Life) {
    let before = std::mem::replace(&mut life.fixed, true);
    spawn(life);
    spawn(life);
    life.fixed = before;
}

/// Closures and results without a size.
fn bare() {
    let number = coro::spawn(|| ()).task().number();
    check(WORLD.with(|world| world.numbers.borrow_mut().insert(number)), "each task has a number of its own");
}

/// A scope whose children borrow.
fn family(life: &mut Life) {
    let (gone, made) = (Cell::new(0), Cell::new(0));
    let result = catch_unwind(AssertUnwindSafe(|| {
        coro::scope(|s| {
            for _ in 0..=life.dice.below(3) {
                let (of, f) = work::<(), Token>(life.child(), Fate { late: true, ..Fate::default() });
                let gone = &gone;
                let counts = OnDrop(move || gone.set(gone.get() + 1));
                let body = move || (f(), counts).0;
                made.set(made.get() + 1);
                let handle = match life.dice.below(4) {
                    0 => s.spawn_with(Builder::new().later(), body).unwrap(),
                    1 => aio::Config::new().backend(Backend::Poll).run(|| s.spawn(body)).unwrap(),
                    _ => s.spawn(body),
                };
                let number = handle.task().number();
                match life.dice.below(4) {
                    0 => ended(of, number, handle.join()),
                    1 => handle.cancel(),
                    _ => {}
                }
            }
            match life.dice.below(8) {
                0 => s.cancel(),
                1 => _ = s.wait(),
                2 => _ = coro::timeout(Duration::ZERO, || s.wait()),
                3 => resume_unwind(Box::new(Token::new())),
                _ => {}
            }
        })
    }));
    drop(result);
    check(gone.get() == made.get(), "a scope ends when its children have");
}

/// Children that run in any case, and may be cancelled before.
fn group(life: &mut Life) {
    let always = Fate { late: true, always: true, ..Fate::default() };
    let [a, b, c] = [(); 3].map(|()| work::<(), ()>(life.child(), always));
    let of = [a.0, b.0, c.0];
    let race = life.one_in(2);
    let run = || if race { coro::race((a.1, b.1, c.1)).values } else { coro::gather((a.1, b.1, c.1)) };
    drop(catch_unwind(AssertUnwindSafe(run)));
    check(of.iter().all(|&of| fate(of, |fate| fate.ran && fate.drops == 1)), "each of a group runs");
}

fn remote(life: &mut Life) {
    let (of, f) = work::<[u64; 1], Token>(life.child(), Fate::default());
    let handle = coro::remote().unwrap().spawn(f);
    if life.one_in(2)
        && let Ok(handle) = handle
    {
        let result = handle.join();
        ended(of, fate(of, |fate| fate.number), result);
    }
}

/// Tasks that each spawn the next one: more than may begin at once.
fn chain(left: u32, life: Life) {
    let token = Token::new();
    let of = token.0;
    fate(of, |fate| fate.is_task = true);
    let task = coro::spawn(move || {
        token.begin();
        if left > 0 { chain(left - 1, life) } else { live(life) }
    });
    let handle = Box::new(Handle(task, of));
    if left.is_multiple_of(3) { WORLD.with(|world| world.loose.borrow_mut().push(handle)) } else { handle.join() }
}

/// Waits until all tasks have ended, and looks at what is left.
fn settle(pass: &dyn Fn()) {
    let open = || WORLD.with(|world| world.fates.borrow().iter().filter(|fate| fate.drops == 0).count());
    let take = || WORLD.with(|world| world.loose.borrow_mut().pop());
    for _ in 0..10_000 {
        while let Some(handle) = take() {
            handle.join();
        }
        drop(LEGACY.with(RefCell::take));
        if coro::stats().alive == 0 && open() == 0 {
            break;
        }
        pass();
    }
    assert_eq!((coro::stats().alive, open()), (0, 0), "some go on for ever, or have kept something");
    let coro::Stats { spawned, stacks, .. } = coro::stats();
    assert_eq!((stacks.in_use, stacks.free as u64), (0, stacks.made));
    WORLD.with(|world| {
        let fates = world.fates.borrow();
        let never_ran = fates.iter().filter(|fate| fate.is_task && !fate.ran && !fate.refused).count();
        assert_eq!(spawned as usize, world.numbers.borrow().len() + never_ran);
    });
}

/// What the root does.
fn play(seed: u64, pass: &dyn Fn()) {
    let mut life = Life { dice: Random(seed), depth: 0, fixed: false };
    WORLD.with(|world| world.here.set(true));
    for round in 0..4 {
        WORLD.with(|world| world.tasks.set(0));
        for _ in 0..12 {
            drop(catch_unwind(AssertUnwindSafe(|| act(&mut life))));
        }
        // The last ones are left to the end of the runtime.
        if round < 3 {
            settle(pass);
        }
    }
}

#[test]
fn tasks_of_all_kinds_at_random() {
    each_engine(|engine| {
        for seed in 1..=8 {
            let workers = if seed % 2 == 0 { 0 } else { 4 };
            let config = runtime(engine).max_workers(workers);
            config.run(|| play(seed, &|| coro::sleep(Duration::from_micros(50)).unwrap())).unwrap();
            check_out(seed);
        }
    });
}

#[test]
fn tasks_of_all_kinds_at_random_in_an_embedded_runtime() {
    each_backend(|backend| {
        for seed in 100..=103 {
            let config = coro::Config::new().backend(backend);
            config.embed(|ticker| play(seed, &|| _ = ticker.tick())).unwrap();
            check_out(seed);
        }
    });
}

/// A closure whose drop panics is dropped by the task, or by whoever could not spawn it; nothing gets lost by that.
#[test]
fn closures_and_results_whose_drops_panic() {
    struct Bad(#[expect(dead_code, reason = "counts")] Dropped);
    impl Drop for Bad {
        fn drop(&mut self) {
            resume_unwind(Box::new(()));
        }
    }
    fn tries<const N: usize>(drops: &Drops) {
        let bad = || (Bad(drops.one()), [0u8; N]);
        let [ran, never, refused, left, given] = [(); 5].map(|()| bad());
        assert!(coro::spawn(move || drop(ran)).join().is_err());
        let task = Builder::new().later().spawn(move || drop(never)).unwrap();
        task.cancel();
        assert!(matches!(task.join(), Err(JoinError::NeverRan)));
        let refused = || Builder::new().stack_size(1).spawn(move || drop(refused)).is_err();
        assert!(catch_unwind(AssertUnwindSafe(refused)).is_err());
        // Nobody asks for it.
        drop(coro::spawn(move || (coro::yield_now(), left).1));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(coro::spawn(move || given)))).is_err());
    }
    each_backend_runtime(|_| {
        let drops = Drops::default();
        tries::<0>(&drops);
        tries::<100>(&drops);
        tries::<600>(&drops);
        eventually("all have ended", || coro::stats().alive == 0);
        assert_eq!((drops.count(), coro::stats().stacks.in_use), (15, 0));
    });
}

/// So many that the process would end if they were one task's.
#[test]
fn refusals_of_former_tasks_are_not_held_against_the_next() {
    fn ignore(why: Error) {
        coro::no_suspend(|| (0..60).for_each(|_| assert_eq!(coro::yield_now(), Err(why))));
    }
    each_backend_runtime(|_| {
        for _ in 0..700 {
            coro::spawn(|| (coro::current().cancel(), ignore(Error::Canceled))).join().unwrap();
            coro::spawn(|| coro::timeout(Duration::ZERO, || ignore(Error::TimedOut))).join().unwrap();
            coro::timeout(Duration::ZERO, || coro::scope(|s| drop(s.spawn(|| ignore(Error::TimedOut)))));
        }
        assert_eq!(coro::stats().stacks.made, 1, "they have taken turns");
    });
}

/// The depth of eager spawns is that of the tasks that wait for each other below.
#[test]
fn a_task_that_has_waited_may_spawn_at_once_however_deep_it_was_begun() {
    fn nest(left: u32) -> bool {
        if left > 0 {
            return coro::spawn(move || nest(left - 1)).join().unwrap();
        }
        let before = coro::spawn(|| ()).is_finished();
        coro::yield_now().unwrap();
        !before && coro::spawn(|| ()).is_finished()
    }
    each_backend_runtime(|_| (0..2).for_each(|_| assert!(coro::spawn(|| nest(63)).join().unwrap())));
}

#[test]
fn an_overflow_in_the_place_of_another_task_names_the_one_that_runs() {
    #[expect(unconditional_recursion, reason = "it is to overflow the stack")]
    fn endless(depth: u64) -> u64 {
        black_box([depth; 64]);
        endless(depth + 1) + 1
    }
    let messages = dies("an_overflow_in_the_place_of_another_task_names_the_one_that_runs", libc::SIGABRT, || {
        coro::run(|| {
            (0..3).for_each(|_| bare());
            coro::spawn(|| endless(0)).join().unwrap()
        })
        .unwrap();
    });
    assert!(messages.iter().all(|message| message.contains("task 4 ")), "{messages:?}");
}
