//! Waiting for one another allocates nothing.

#[path = "common/allocations.rs"]
mod allocations;
mod common;

use aio::{
    coro,
    sync::{self, shared},
};
use allocations::allocations;
use common::*;
use std::cell::Cell;

/// Those in which everything may grow to what it needs, and those that count.
const WARM: u64 = 50;
const ROUNDS: u64 = 1000;

/// Has two tasks play against each other, of which one has to wait again and again.
#[track_caller]
fn allocates_nothing(what: &str, one: impl Fn(), other: impl Fn()) {
    // The first task that ends after a wait makes the piles for what it leaves.
    coro::spawn(coro::yield_now).join().unwrap().unwrap();
    let (mut before, mut count) = (None, 0);
    coro::scope(|s| {
        s.spawn(|| (0..WARM + ROUNDS).for_each(|_| one()));
        for round in 0..WARM + ROUNDS {
            if round == WARM {
                before = Some((coro::stats().switches, allocations()));
            }
            other();
        }
        count = allocations();
    });
    let (switches, allocations) = before.unwrap();
    assert_eq!(count - allocations, 0, "{what}");
    assert!(coro::stats().switches - switches >= ROUNDS / 20, "{what}: nobody has waited");
}

/// The same for both kinds of primitives.
macro_rules! each_primitive {
    ($($kind:ident)::+) => {{
        use $($kind)::+ as kind;
        let name = |what: &str| format!("{}: {what}", stringify!($($kind)::+));
        let (ping, pong) = (kind::Event::auto_reset(), kind::Event::auto_reset());
        let answer = || {
            ping.wait().unwrap();
            pong.set();
        };
        allocates_nothing(&name("events"), answer, || {
            ping.set();
            pong.wait().unwrap();
        });
        allocates_nothing(&name("a time limit"), answer, || {
            ping.set();
            coro::timeout(NEVER, || pong.wait()).unwrap();
        });
        let (_sender, silent) = kind::channel::<u8>(1);
        allocates_nothing(&name("select"), answer, || {
            ping.set();
            assert_eq!(coro::select((&silent, &pong)), Ok((None, Some(Ok(())))));
        });
        let mutex = kind::Mutex::new(());
        let hold = || {
            let _guard = mutex.lock().unwrap();
            coro::yield_now().unwrap();
        };
        allocates_nothing(&name("a mutex"), hold, hold);
        let lock = kind::RwLock::new(());
        let write = || {
            let _guard = lock.write().unwrap();
            coro::yield_now().unwrap();
        };
        allocates_nothing(&name("a lock to read and write"), write, || {
            let _guard = lock.read().unwrap();
            coro::yield_now().unwrap();
        });
        let semaphore = kind::Semaphore::new(2);
        let take = || {
            let _permit = semaphore.acquire(2).unwrap();
            coro::yield_now().unwrap();
        };
        allocates_nothing(&name("a semaphore"), take, take);
        let (turn, changed) = (kind::Mutex::new(0), kind::Condvar::new());
        let next = |mine: usize| {
            let mut turn = changed.wait_while(turn.lock().unwrap(), |turn| *turn != mine).unwrap();
            *turn = 1 - mine;
            changed.notify_one();
        };
        allocates_nothing(&name("a condition variable"), || next(0), || next(1));
        let barrier = kind::Barrier::new(2);
        allocates_nothing(&name("a barrier"), || assert!(barrier.wait().is_ok()), || assert!(barrier.wait().is_ok()));
        for capacity in [0, 1, 8] {
            let (sender, receiver) = kind::channel(capacity);
            allocates_nothing(&name("a channel"), || sender.send(7).unwrap(), || assert_eq!(receiver.recv(), Ok(7)));
        }
        let (sender, receiver) = kind::unbounded();
        let send = || {
            sender.send(7).unwrap();
            coro::yield_now().unwrap();
        };
        allocates_nothing(&name("an unbounded channel"), send, || assert_eq!(receiver.recv(), Ok(7)));
    }};
}

#[test]
fn waiting_for_one_another_allocates_nothing() {
    each_runtime(|| {
        each_primitive!(sync);
        each_primitive!(shared);
    });
}

#[test]
fn parking_and_sleeping_allocate_nothing() {
    each_runtime(|| {
        let root = coro::current();
        let other = Cell::new(None);
        let wake = || {
            other.set(Some(coro::current()));
            while !root.wake() {
                coro::yield_now().unwrap();
            }
            coro::park(2).unwrap();
        };
        allocates_nothing("parking", wake, || {
            coro::park(1).unwrap();
            while !other.get().unwrap().wake_if(2) {
                coro::yield_now().unwrap();
            }
        });
        let nap = || coro::sleep(std::time::Duration::from_nanos(1)).unwrap();
        allocates_nothing("sleeping", nap, nap);
    });
}
