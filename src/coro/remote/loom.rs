//! Checked by loom: a letter that nobody learns of would be a deadlock.

use super::*;
use crate::sys::concurrent::check;
use ::loom::thread;

fn letter() -> Letter {
    Letter::Run(Box::new(|| ()))
}

#[test]
fn each_letter_is_found_by_whoever_waits_for_the_bell() {
    check(|| {
        let shared = Arc::new(Shared::new().unwrap());
        let threads = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || assert!(shared.send(letter()).is_ok()))
        });
        // The runtime looks even if it was not told.
        let mut found = shared.collect().len();
        while found < 2 {
            shared.bell.wait();
            found += shared.collect().len();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn what_is_sent_as_the_runtime_ends_is_found_or_given_back() {
    check(|| {
        let shared = Arc::new(Shared::new().unwrap());
        let others = shared.clone();
        let thread = thread::spawn(move || usize::from(others.send(letter()).is_err()));
        let found = shared.collect().len() + shared.close().len();
        let refused = thread.join().unwrap();
        assert_eq!((found + refused, shared.collect().len()), (1, 0));
    });
}

#[test]
fn the_last_remote_is_not_waited_for() {
    check(|| {
        let shared = Arc::new(Shared::new().unwrap());
        let threads = [(); 2].map(|()| {
            shared.remotes.fetch_add(1, Ordering::AcqRel);
            let remote = Remote { shared: shared.clone() };
            thread::spawn(move || drop(remote))
        });
        while shared.remotes.load(Ordering::Acquire) > 0 {
            shared.bell.wait();
            shared.collect();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
