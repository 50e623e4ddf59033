//! Checked by loom: a signal that a stream misses would be a deadlock. The handler is another thread here.

use super::*;
use crate::sys::concurrent::check;
use ::loom::{sync::atomic::AtomicUsize, thread};
use std::sync::Arc;

#[test]
fn a_signal_between_the_look_and_the_wait_is_not_missed() {
    check(|| {
        let listener = Arc::new(Listener::new().unwrap());
        // Stands for the count that all listeners have in common.
        let count = Arc::new(AtomicUsize::new(0));
        listener.want(Signal::TERM, true);
        let threads = [(); 2].map(|()| {
            let (listener, count) = (listener.clone(), count.clone());
            thread::spawn(move || {
                count.fetch_add(1, SeqCst);
                listener.notice(Signal::TERM.number());
            })
        });
        // As `Signals::recv`.
        loop {
            listener.expect();
            if count.load(SeqCst) == 2 {
                break;
            }
            listener.event().wait();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
