//! Checked by loom: a ring that a sleeper misses would be a deadlock.

use super::*;
use crate::sys::concurrent::check;
use ::loom::thread;
use std::sync::atomic::Ordering::Relaxed;

/// A queue, as far as its bell is concerned.
pub(in crate::queue) struct Sleeper {
    bell: Arc<Bell>,
    armed: Cell<bool>,
    pending: Cell<u32>,
}

impl Sleeper {
    pub(in crate::queue) fn with_source() -> Sleeper {
        Sleeper::new(Rope::Source(EventSource::new().unwrap()))
    }

    pub(in crate::queue) fn with_door() -> Sleeper {
        Sleeper::new(Rope::Model(EventSource::new().unwrap()))
    }

    fn new(rope: Rope) -> Sleeper {
        Sleeper { bell: Arc::new(Bell::new(rope)), armed: Cell::new(false), pending: Cell::new(0) }
    }

    pub(in crate::queue) fn handle(&self) -> Handle {
        Handle::new(&self.bell)
    }

    pub(in crate::queue) fn is_awaited(&self) -> bool {
        self.bell.is_awaited()
    }

    /// As `Queue::wait`: takes no completion if it was rung already.
    pub(in crate::queue) fn wait(&self) -> Vec<Token> {
        if !self.armed.replace(true) {
            let told = matches!(self.bell.rope, Rope::Model(_)) && self.bell.rung.load(SeqCst);
            self.pending.set(u32::from(!told));
        }
        while !self.bell.was_heard(true, &self.pending) {
            // The one operation, or a message.
            let (Rope::Source(source) | Rope::Model(source)) = &self.bell.rope else { unreachable!() };
            source.wait();
            self.pending.set(self.pending.get().saturating_sub(1));
        }
        self.look()
    }

    /// As `Queue::open_post`.
    pub(in crate::queue) fn look(&self) -> Vec<Token> {
        let heard = self.bell.was_heard(self.armed.get(), &self.pending);
        self.armed.set(self.armed.get() && !heard);
        self.bell.answer(heard)
    }
}

fn each_rope(f: fn(&Sleeper)) {
    check(move || f(&Sleeper::with_source()));
    check(move || f(&Sleeper::with_door()));
}

#[test]
fn no_cancel_is_missed() {
    each_rope(|sleeper| {
        let threads = [0, 1].map(|index| {
            let canceler = Canceler(sleeper.handle());
            thread::spawn(move || canceler.cancel(Token { index, generation: 0, queue: 0 }))
        });
        let mut tokens = sleeper.look();
        while tokens.len() < 2 {
            tokens.extend(sleeper.wait());
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_second_ring_after_an_answer_is_heard() {
    each_rope(|sleeper| {
        let canceler = Canceler(sleeper.handle());
        let thread = thread::spawn(move || {
            for index in 0..3 {
                canceler.cancel(Token { index, generation: 0, queue: 0 });
            }
        });
        let mut tokens = Vec::new();
        while tokens.len() < 3 {
            tokens.extend(sleeper.wait());
        }
        thread.join().unwrap();
    });
}

#[test]
fn nobody_waits_for_handles_that_are_gone() {
    each_rope(|sleeper| {
        let threads = [(); 2].map(|()| {
            let waker = Waker(sleeper.handle());
            thread::spawn(move || drop(waker))
        });
        while sleeper.is_awaited() {
            sleeper.wait();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn what_was_written_before_a_wake_is_seen_after_the_wait() {
    each_rope(|sleeper| {
        let written = Arc::new(AtomicUsize::new(0));
        let threads = [1, 2].map(|bit| {
            let (waker, written) = (Waker(sleeper.handle()), written.clone());
            thread::spawn(move || {
                written.fetch_add(bit, Relaxed);
                waker.wake();
            })
        });
        while written.load(Relaxed) != 3 {
            sleeper.wait();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
