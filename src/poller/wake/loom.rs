//! Checked by loom: a wait that nobody ends would be a deadlock.

use super::*;
use crate::{
    poller::Notifier,
    sys::concurrent::{AtomicUsize, check},
};
use ::loom::thread;
use std::sync::atomic::Ordering::Relaxed;

fn shared() -> Arc<Shared> {
    Arc::new(Shared::new(Life::current()).unwrap())
}

/// Waits as a poller does.
fn wait(shared: &Shared, events: &mut Events) {
    shared.event.wait_readable();
    events.woken = false;
    events.clear();
    shared.take(events);
}

#[test]
fn what_was_written_before_a_wake_is_seen_after_the_wait() {
    check(|| {
        let shared = shared();
        let written = Arc::new(AtomicUsize::new(0));
        let threads = [1, 2].map(|bit| {
            let (waker, written) = (Waker(shared.clone()), written.clone());
            thread::spawn(move || {
                written.fetch_add(bit, Relaxed);
                waker.wake();
            })
        });
        let mut events = Events::with_capacity(1);
        while written.load(Relaxed) != 3 {
            wait(&shared, &mut events);
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_notification_after_an_event_is_another_event() {
    check(|| {
        let shared = shared();
        let count = Arc::new(AtomicUsize::new(0));
        let notifier = Notifier::new(shared.clone(), Token(1));
        let other = Notifier::new(shared.clone(), Token(2));
        let counted = count.clone();
        let thread = thread::spawn(move || {
            for _ in 0..2 {
                counted.fetch_add(1, Relaxed);
                notifier.notify();
            }
        });
        other.notify();
        let (mut seen, mut others) = (0, 0);
        // Room for one: what is left has to be told again.
        let mut events = Events::with_capacity(1);
        while seen != 2 || others != 1 {
            wait(&shared, &mut events);
            for event in &events {
                match event.token {
                    Token(1) => seen = count.load(Relaxed),
                    _ => others += 1,
                }
            }
        }
        thread.join().unwrap();
    });
}
